"""Nodes as processes on this machine: made, started, registered with one another, stopped."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from exchange.cli.client import CommandFailed, Node, socket_of

_START_TIMEOUT_S: Final = 60.0
_PROGRAM: Final = (sys.executable, "-m", "exchange.cli.main")


@dataclass(frozen=True)
class Borough:
    """A borough and the name of its directory."""

    slug: str
    area: str
    name: str

    @property
    def origin(self) -> str:
        """The name of its node."""
        return f"exchange.{self.slug}.example"


HACKNEY = Borough("hackney", "E09000012", "London Borough of Hackney")
ENFIELD = Borough("enfield", "E09000010", "London Borough of Enfield")


class RunningNode(Node):
    """A node that runs as a process of ours."""

    def __init__(self, config: Path, process: "subprocess.Popen[bytes]") -> None:
        super().__init__(config)
        self.process = process


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_node(directory: Path, borough: Borough, *, url: str | None = None, port: int | None = None) -> None:
    """Make the node of a borough, in whichever directory; its peers reach it at its own port, or at `url`.

    Raises:
        CommandFailed: it cannot be made there.
    """
    port = port or free_port()
    made = subprocess.run(  # noqa: S603 - our own program
        [
            *_PROGRAM,
            "init",
            str(directory),
            *("--area", borough.area, "--name", borough.name),
            *("--origin", borough.origin),
            *("--listen", f"127.0.0.1:{port}", "--url", url or f"http://127.0.0.1:{port}"),
        ],
        check=False,
        stdout=subprocess.DEVNULL,
    )
    if made.returncode != 0:
        raise CommandFailed(f"the node of {borough.name} could not be made in {directory}", 1)


def start_node(stack: contextlib.ExitStack, root: Path, borough: Borough, more: str = "") -> RunningNode:
    """Start the node of a borough, making it first where there is none; the stack stops it.

    `more` is the text of further tables for the configuration of a node that is made.

    Raises:
        CommandFailed: it stopped by itself, or does not answer within a minute.
    """
    directory = root / borough.slug
    config = directory / "exchange.toml"
    if not config.exists():
        make_node(directory, borough)
        with config.open("a") as file:
            file.write(more)
    elif _answers(config):
        raise CommandFailed(
            f"a node runs in {directory} already", 1, "Stop it first, or name another directory with --dir."
        )
    log = stack.enter_context((directory / "node.log").open("ab"))
    process = subprocess.Popen([*_PROGRAM, "run", "--config", str(config)], stderr=log)  # noqa: S603 - our own program
    stack.callback(stop, process)
    _until_listening(process, config)
    return RunningNode(config, process)


def _until_listening(process: "subprocess.Popen[bytes]", config: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CommandFailed(f"the node of {config} stopped; see {config.parent / 'node.log'}", 1)
        if _answers(config):
            return
        time.sleep(0.05)
    raise CommandFailed(f"the node of {config} did not start within {_START_TIMEOUT_S:g} seconds", 1)


def _answers(config: Path) -> bool:
    try:
        return socket_of(config).exists() and bool(Node(config).request("GET", "/v1/health"))
    except CommandFailed:
        return False


def stop(process: "subprocess.Popen[Any]") -> None:
    """Ask a process to drain; kill it after 15 seconds."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def register(node: Node, other: Node) -> None:
    """Register each with the other, as two admins do who compare fingerprints by telephone."""
    for here, there in ((node, other), (other, node)):
        card = there.request("GET", "/v1/card")
        with contextlib.suppress(CommandFailed):
            here.request("DELETE", f"/v1/peers/{card['origin']}")
        here.request("POST", "/v1/peers", {"card": card["card"], "fingerprint": card["fingerprint"]})
        agree(here, card["area"])


def agree(node: Node, area: str) -> None:
    """Put a sharing agreement with the borough of an area on file, unless there is one in force."""
    present = node.request("GET", "/v1/agreements")["items"]
    if any(row["area"] == area and row["state"] in ("active", "ending") for row in present):
        return
    today = datetime.now(UTC).date()
    body = {
        "area": area,
        "title": "Sharing agreement of the demonstration",
        "reference": "DEMO-1",
        "starts_on": (today - timedelta(days=1)).isoformat(),
        "ends_on": (today + timedelta(days=365)).isoformat(),
        "bases": [
            {"regime": "law-enforcement", "gateway": "crime-and-disorder-s115"},
            {"agency": "childrens-social-care", "regime": "uk-gdpr", "gateway": "children-act-2004-s10"},
            {"agency": "health", "regime": "uk-gdpr", "gateway": "health-and-care-s251b"},
        ],
    }
    node.request("POST", "/v1/agreements", body)
