"""Boroughs as real processes, driven by the command line; nothing here stands in for anything.

* Every wait is for a condition and has a deadline; what a node wrote to standard error is part of the failure.
"""

import contextlib
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from exchange.cli.client import CommandFailed, Node
from exchange.crypto.keystore import Argon2Parameters, lock_keystore, unlock_keystore
from exchange.crypto.secret import Secret
from exchange.schema.catalogue import default_catalogue
from exchange.schema.examples import example_form
from exchange.schema.form import decode_form
from exchange.schema.split import FormPart, preview, split
from tests import databases
from tests.processes.ports import free_port
from tests.processes.receiver import Receiver

T = TypeVar("T")

HACKNEY: Final = "E09000012"
ENFIELD: Final = "E09000010"
KINDS: Final = tuple(agency.kind for agency in default_catalogue().agencies)
DEADLINE_S: Final = 60.0
_ANY_PORT: Final = 7400


def until(what: str, condition: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """Wait until `condition` gives something true, and return that."""
    deadline = time.monotonic() + deadline_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {deadline_s:g} seconds still waiting until {what}"
        time.sleep(0.02)


def example(name: str) -> bytes:
    """A form that is shipped with the program, as fresh as on its first day."""
    return example_form(name, datetime.now(UTC).date())


def parts_of(form: bytes) -> tuple[FormPart, ...]:
    """The parts of a form, each with those who may read it."""
    return split(decode_form(form), default_catalogue())


def allowed_by(form: bytes) -> dict[str, set[str]]:
    """The sections that each agency may read, those of agencies that may read none too."""
    found = preview(parts_of(form))
    return {kind: set(found.get(kind, ())) for kind in KINDS}


@dataclass(frozen=True)
class Result:
    """What came of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.stdout)

    def one_line_error(self) -> str:
        """The error, checked to be one line for what happened and at most one for what to do, without a traceback."""
        lines = self.stderr.strip().splitlines()
        assert self.code != 0, self
        assert 1 <= len(lines) <= 2, self.stderr
        assert lines[0].startswith("Error: "), self.stderr
        assert "Traceback" not in self.stderr, self.stderr
        return self.stderr


def exchange(*arguments: object, directory: Path | None = None, environment: Mapping[str, str] | None = None) -> Result:
    """Run the program to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("EXCHANGE_", "SSL_CERT"))}
    done = subprocess.run(
        [sys.executable, "-m", "exchange.cli.main", *map(str, arguments)],
        cwd=directory,
        env={**clean, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def _made_once(templates: Path, slug: str, area: str) -> Path:
    """The directory that `exchange init` makes of a borough, locked anew at the least cost of Argon2.

    What takes most of the time of making and starting a node is Argon2 at its proper cost.
    """
    directory = templates / slug
    if not directory.exists():
        url, listen = f"http://127.0.0.1:{_ANY_PORT}", f"127.0.0.1:{_ANY_PORT}"
        name, origin = f"Borough of {slug.title()}", f"exchange.{slug}.example"
        made = exchange(
            *("init", directory, "--area", area, "--name", name, "--origin", origin, "--listen", listen, "--url", url),
            *("--store", databases.url_for_a_node()),
        )
        assert made.code == 0, made
        passphrase = Secret((directory / "passphrase").read_bytes().strip())
        entries = unlock_keystore((directory / "keystore.json").read_bytes(), passphrase)
        (directory / "keystore.json").write_bytes(lock_keystore(entries, passphrase, Argon2Parameters(1, 8192)))
    return directory


class Borough:
    """A borough's node: its directory, and the process while there is one."""

    def __init__(self, root: Path, templates: Path, slug: str, area: str, *, scheme: str = "http") -> None:
        self.directory = Path(shutil.copytree(_made_once(templates, slug, area), root / slug))
        self.config = self.directory / "exchange.toml"
        databases.copied_into(self.config)
        self.log = root / f"{slug}.log"
        self.origin = f"exchange.{slug}.example"
        self.area = area
        self.port = free_port()
        #: Where strangers reach it, if elsewhere than its peers.
        self.open_url = ""
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        #: What is run; a test of faults puts something before it, or another entry point in its place.
        self.program: tuple[str, ...] = (sys.executable, "-m", "exchange.cli.main")
        text = self.config.read_text().replace(f":{_ANY_PORT}", f":{self.port}").replace("http://", f"{scheme}://")
        self.config.write_text(text)
        # An agency that was down is tried again soon, for as long as a test may take.
        self.configure("delivery", agency_retry_s=[*[0.5] * 90, 3600])

    def copied(self, name: str) -> "Borough":
        """A second node with the keys and the store of this one, which must not run; it names the same URL."""
        other = self.replica(name)
        databases.copied_into(other.config)
        return other

    def replica(self, name: str) -> "Borough":
        """Another process for this node, on the same store: a copy of its directory, with a port of its own."""
        other = copy.copy(self)
        other.directory = Path(
            shutil.copytree(
                self.directory, self.directory.parent / name, ignore=shutil.ignore_patterns("*.sock", "*.lock")
            )
        )
        other.config, other.log = other.directory / "exchange.toml", self.log.with_name(f"{name}.log")
        other.port, other.process = free_port(), None
        text = other.config.read_text()
        other.config.write_text(
            text.replace(f'address = "127.0.0.1:{self.port}"', f'address = "127.0.0.1:{other.port}"')
        )
        return other

    def configure(self, table: str, **values: object) -> None:
        """Set keys of a table of the configuration file."""
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        text = self.config.read_text()
        header = f"[{table}]\n"
        text = text.replace(header, header + lines) if header in text else f"{text}\n{header}{lines}"
        self.config.write_text(text)

    def setting(self, table: str, key: str) -> Any:
        """A value of the configuration file."""
        return tomllib.loads(self.config.read_text())[table][key]

    def start(self, *, wait: bool = True, arguments: Sequence[str] = ()) -> "Borough":
        """Start the node; unless told otherwise, wait until it answers."""
        assert self.process is None or self.process.poll() is not None, "the node runs already"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("EXCHANGE_", "SSL_CERT"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program, "run", "--config", str(self.config), *arguments],
                env={**clean, **self.environment},
                stderr=log,
            )
        if wait:
            until(f"the node of {self.origin} answers", self.answers)
        return self

    def answers(self) -> bool:
        """Whether the node answers on its local socket; fails if its process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, f"the node of {self.origin} stopped:\n{self.log.read_text()[-3000:]}"
        with contextlib.suppress(CommandFailed):
            return bool(self.api("GET", "/v1/health")["status"] == "ok")
        return False

    def is_idle(self) -> bool:
        """Whether nothing waits to be delivered."""
        return not self.api("GET", "/v1/health")["lanes"]

    def kill(self) -> None:
        """Kill the process as a power cut does: SIGKILL, nothing drained."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE_S)

    def stop(self) -> int:
        """Ask the node to drain, and wait; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def is_reached_at(self, port: int) -> None:
        """Have peers reach this node at another port than the one where it listens."""
        text = self.config.read_text()
        self.config.write_text(
            text.replace(f'url = "http://127.0.0.1:{self.port}"', f'url = "http://127.0.0.1:{port}"')
        )

    def restart(self, **delivery: object) -> None:
        """Stop the node, change how it delivers, and start it."""
        self.stop()
        if delivery:
            self.configure("delivery", **delivery)
        self.start()

    def cli(self, *arguments: object) -> Result:
        """Run a command against this node."""
        return exchange(*arguments, environment={"EXCHANGE_CONFIG": str(self.config)})

    def ask(self, *arguments: object) -> Any:
        """Run a command that must succeed; its JSON document."""
        result = self.cli(*arguments, "--json")
        assert result.code == 0, result
        return result.document

    def api(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, wait_s: float = 0) -> Any:
        """Ask the node without the cost of a process."""
        return Node(self.config).request(method, path, body, raw=raw, wait_s=wait_s)

    def send(self, form: bytes, area: str) -> str:
        """Send a form; the message's id."""
        return str(self.api("POST", f"/v1/messages/to/{area}", raw=form)["id"])

    def status(self, message_id: str, rung: str = "", timeout_s: int = 0) -> Any:
        """A message's status, at once or when every section has reached `rung`."""
        query = f"?wait={rung}&timeout_s={timeout_s}" if rung else ""
        return self.api("GET", f"/v1/messages/{message_id}{query}", wait_s=timeout_s)

    def trusts(self, other: "Borough", *options: object) -> Any:
        """Register the other borough by its card file and fingerprint, as two admins do by telephone."""
        card = other.directory / f"card-for-{self.directory.name}.json"
        card.unlink(missing_ok=True)
        fingerprint = other.ask("card", "export", card)["fingerprint"]
        return self.ask("peer", "add", card, "--fingerprint", fingerprint, *options)

    def add_agencies(self, receiver: Receiver, kinds: Sequence[str] = KINDS) -> None:
        """Register agencies whose webhooks the receiver takes."""
        for kind in kinds:
            self.add_agency(kind, receiver)

    def add_agency(self, kind: str, receiver: Receiver) -> Any:
        """Register one agency."""
        added = self.ask("agency", "add", kind, "--url", receiver.url(kind), "--allow-network", "127.0.0.0/8")
        receiver.know(kind, added["secret"])
        return added


def introduce(here: Borough, there: Borough, *options: object) -> None:
    """Register two running boroughs with one another, and wait until each has heard that the other is there."""
    here.trusts(there, *options)
    there.trusts(here, *options)
    for borough in (here, there):
        until(f"{borough.origin} has greeted its peer", borough.is_idle)
