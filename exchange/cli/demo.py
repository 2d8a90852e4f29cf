"""`exchange demo`: two boroughs and ten agencies on this machine, each a process, and one handover between them."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import click

from exchange.cli.boroughs import ENFIELD, HACKNEY, register, start_node, stop
from exchange.cli.client import CommandFailed, Node
from exchange.cli.output import json_option, print_json

_FAULTS: Final = ("stolen-key", "mitm")


@dataclass
class _Agency:
    kind: str
    process: "subprocess.Popen[str]"
    url: str
    received: list[str] = field(default_factory=list)


def _start_agency(stack: contextlib.ExitStack, kind: str) -> _Agency:
    process = subprocess.Popen(
        [sys.executable, "-m", "exchange.cli.demo_agency"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(stop, process)
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    port = json.loads(process.stdout.readline())["port"]
    agency = _Agency(kind, process, f"http://127.0.0.1:{port}/webhook")
    threading.Thread(target=_collect, args=(process.stdout, agency), daemon=True).start()
    return agency


def _collect(stream: IO[str], agency: _Agency) -> None:
    for line in stream:
        agency.received.append(json.loads(line)["section"])


def _register_agency(node: Node, agency: _Agency) -> None:
    for present in node.request("GET", "/v1/agencies")["items"]:
        if present["kind"] == agency.kind:
            node.request("DELETE", f"/v1/agencies/{present['id']}")
    body = {"kind": agency.kind, "url": agency.url, "networks": ["127.0.0.0/8"]}
    secret = node.request("POST", "/v1/agencies", body)["secret"]
    assert agency.process.stdin is not None  # noqa: S101 - it is a pipe
    agency.process.stdin.write(secret + "\n")
    agency.process.stdin.flush()


@contextlib.contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    made = Path(tempfile.mkdtemp(prefix="exchange-demo-"))
    try:
        yield made
    except CommandFailed:
        # Kept: the message names a log in it.
        raise
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    shutil.rmtree(made, ignore_errors=True)


@click.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path, file_okay=False), help="Keep the two nodes here.")
@click.option("--serve", is_flag=True, help="Keep everything running until Ctrl-C.")
@click.option(
    "--fault",
    type=click.Choice(_FAULTS),
    help="Play an attack instead, and what the admins see and do: stolen keys, or somebody in the middle.",
)
@json_option
def demo(directory: Path | None, serve: bool, fault: str | None, as_json: bool) -> None:
    """Hand case study J from Hackney to Enfield, both on this machine, and show who received what."""
    if fault is not None:
        if serve:
            raise click.UsageError("--serve does not go with --fault")
        _play_fault(directory, fault, as_json)
        return
    with _directory(directory) as root, contextlib.ExitStack() as stack:
        result = _play(stack, root.absolute(), quiet=as_json)
        if as_json:
            print_json(result)
        if serve:
            _serve(root.absolute(), result, as_json)
        if not result["ok"]:
            raise CommandFailed(
                "not every section reached exactly the agencies that may read it",
                1,
                f"The nodes and their logs are kept in {root}.",
                told=as_json,
            )


def _play_fault(directory: Path | None, fault: str, as_json: bool) -> None:
    from exchange.cli import demo_mitm, demo_stolen_key
    from exchange.cli.demo_story import Story
    from exchange.schema.examples import example_form

    play = {"stolen-key": demo_stolen_key.play, "mitm": demo_mitm.play}[fault]
    if directory is not None and directory.exists() and any(directory.iterdir()):
        raise CommandFailed(f"{directory} is not empty", 1, "Name a directory of its own with --dir.")
    with _directory(directory) as root, contextlib.ExitStack() as stack:
        story = Story(root.absolute(), quiet=as_json)
        play(stack, story, example_form("case-study-j", datetime.now(UTC).date()))
        if as_json:
            print_json(story.document(fault))
        else:
            click.echo(f"\nThe exchange behaved as it must: {'yes' if story.is_as_it_must_be else 'NO'}")
        if not story.is_as_it_must_be:
            raise CommandFailed(
                "the exchange did not behave as it must",
                1,
                f"The nodes and their logs are kept in {root}.",
                told=as_json,
            )


def _received(agencies: list[_Agency], allowed: dict[str, list[str]]) -> dict[str, list[str]]:
    """What each agency printed; its last lines may still be on their way through the pipe."""
    deadline = time.monotonic() + 10
    waiting = agencies
    while waiting and time.monotonic() < deadline:
        waiting = [agency for agency in waiting if len(agency.received) < len(allowed.get(agency.kind, []))]
        time.sleep(0.01)
    return {agency.kind: sorted(agency.received) for agency in agencies}


def _say(quiet: bool, text: str = "") -> None:
    click.echo(text, err=quiet)


def _play(stack: contextlib.ExitStack, root: Path, *, quiet: bool) -> dict[str, Any]:
    from exchange.schema.catalogue import default_catalogue
    from exchange.schema.examples import example_form
    from exchange.schema.form import decode_form
    from exchange.schema.split import preview, split

    catalogue = default_catalogue()
    _say(quiet, "Starting the nodes of Hackney and Enfield, and ten agencies in Enfield ...")
    hackney, enfield = (start_node(stack, root, borough) for borough in (HACKNEY, ENFIELD))
    agencies = [_start_agency(stack, agency.kind) for agency in catalogue.agencies]
    for agency in agencies:
        _register_agency(enfield, agency)
    register(hackney, enfield)
    data = example_form("case-study-j", datetime.now(UTC).date())
    _say(quiet, "Hackney sends the form of J, a fictitious person, to Enfield ...")
    sent = hackney.request("POST", f"/v1/messages/to/{ENFIELD.area}", raw=data)
    path = f"/v1/messages/{sent['id']}?wait=delivered&timeout_s=60"
    status = hackney.request("GET", path, wait_s=60)
    timeline = hackney.request("GET", f"/v1/messages/{sent['id']}/timeline")
    allowed: dict[str, list[str]] = {
        kind: sorted(names) for kind, names in preview(split(decode_form(data), catalogue)).items()
    }
    received = _received(agencies, allowed)
    ok = status["reached"] and all(received[kind] == allowed.get(kind, []) for kind in received)
    _say(quiet)
    for event in timeline["events"]:
        line = f"{event['at'][11:23]}  {_brief(event)}"
        _say(quiet, textwrap.fill(line, 80, subsequent_indent=" " * 14, break_on_hyphens=False))
    _say(quiet)
    _say(quiet, "Each agency received:")
    _say(quiet)
    for kind, names in received.items():
        line = f"{kind:22} {', '.join(names) or 'nothing'}"
        _say(quiet, textwrap.fill(line, 80, subsequent_indent=" " * 23, break_on_hyphens=False))
    _say(quiet)
    _say(quiet, f"Every section reached exactly the agencies that may read it: {'yes' if ok else 'NO'}")
    return {"ok": ok, "id": sent["id"], "dir": str(root), "received": received, "allowed": allowed}


def _brief(event: dict[str, Any]) -> str:
    """A line of the timeline, with sections counted instead of named."""
    names = ", ".join(event["sections"])
    count = len(event["sections"])
    return str(event["text"]).replace(names, f"{count} section{'' if count == 1 else 's'}") if names else event["text"]


def _serve(root: Path, result: dict[str, Any], quiet: bool) -> None:
    _say(quiet, "")
    for borough in (HACKNEY, ENFIELD):
        config = root / borough.slug / "exchange.toml"
        card = Node(config).request("GET", "/v1/card")
        _say(quiet, f"{borough.name}: {card['url']}\n    {config}")
    program = "exchange" if shutil.which("exchange") else f"{sys.executable} -m exchange.cli.main"
    _say(quiet, "\nIn another terminal, try:")
    _say(quiet, f"    export EXCHANGE_CONFIG={root}/hackney/exchange.toml")
    for words in ("status", "explain"):
        _say(quiet, f"    {program} {words} {result['id']}")
    _say(quiet, "\nEverything keeps running until you press Ctrl-C.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
