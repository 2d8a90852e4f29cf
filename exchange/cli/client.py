"""How commands reach their node: HTTP over the local Unix socket, and what its errors mean as exit codes."""

import contextlib
import http.client
import json
import os
import socket
import tomllib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Final, NoReturn

import click

FAILURE: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
TRUST_REFUSED: Final = 4
INVALID: Final = 5
TRY_LATER: Final = 75

_BLOCK_BYTES: Final = 1024 * 1024

_TRUST_CODES: Final = {
    "peer-untrusted",
    "fingerprint-mismatch",
    "unacceptable",
    "fork",
    "identity-revoked",
    "directory-refused",
    "second-person-needed",
}


class CommandFailed(click.ClickException):
    """A command that failed, with its exit code; `told` where its JSON document is on standard output already."""

    exit_code: int  # type: ignore[misc]  # click has one for the whole class

    def __init__(
        self,
        message: str,
        exit_code: int,
        hint: str = "",
        code: str = "failed",
        *,
        told: bool = False,
        findings: Sequence[dict[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.hint = hint
        self.code = code
        self.told = told
        self.findings = findings

    def show(self, file: Any = None) -> None:
        """One line that says what happened, one that says what to do."""
        for finding in self.findings:
            click.echo(f"{finding['severity']}: {finding['path']}: {finding['message']}", err=True)
            if finding.get("hint"):
                click.echo(f"       {finding['hint']}", err=True)
        click.echo(f"Error: {self.message}", err=True)
        if self.hint:
            click.echo(f"       {self.hint}", err=True)


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s, blocksize=_BLOCK_BYTES)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        # The kernel allows 108 bytes for the path; the directory's descriptor makes any path short.
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


def socket_of(config: Path) -> Path:
    """Where the node of a configuration listens for its commands."""
    try:
        tables = tomllib.loads(config.read_text())
    except FileNotFoundError:
        place = "here" if config.parent == Path() else f"in {config.parent}"
        raise CommandFailed(
            f"there is no configuration {config.name} {place}",
            FAILURE,
            "Give --config FILE, or set EXCHANGE_CONFIG. `exchange init` makes a new node.",
            "no-configuration",
        ) from None
    except (OSError, ValueError) as error:
        raise CommandFailed(f"cannot read the configuration {config}: {error}", FAILURE) from None
    local = tables.get("local", {})
    name = local.get("socket", "exchange.sock") if isinstance(local, dict) else "exchange.sock"
    return (config.parent / str(name)).absolute()


class Node:
    """The running node of a configuration file."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        wait_s: float = 0,
        idempotency_key: str | None = None,
        override: str | None = None,
    ) -> Any:
        """Ask the node.

        Raises:
            CommandFailed: the node is not running, stopped before it answered, or refused.
        """
        data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        headers = {"content-type": "application/json"}
        if idempotency_key is not None:
            headers["idempotency-key"] = idempotency_key
        if override is not None:
            headers["override-reason"] = urllib.parse.quote(override)
        with self._asking(wait_s) as connection:
            connection.request(method, path, body=data, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
        document = json.loads(content) if content else None
        if answer.status >= 400:
            _fail(answer.status, document)
        return document

    def upload(
        self,
        path: str,
        file: IO[bytes],
        size_bytes: int,
        headers: Mapping[str, str],
        done: Callable[[int], None],
        *,
        wait_s: float,
    ) -> Any:
        """PUT a file as it is read; `done` is told how much of it has gone.

        Raises:
            CommandFailed: the node is not running, stopped before it answered, or refused.
        """
        with self._asking(wait_s) as connection:
            try:
                told = {"content-type": "application/octet-stream", "content-length": str(size_bytes), **headers}
                connection.request("PUT", path, body=_Told(file, done), headers=told)
            except ConnectionError:
                pass  # it may have said why before it had everything
            answer = connection.getresponse()
            content = answer.read()
        document = json.loads(content) if content else None
        if answer.status >= 400:
            _fail(answer.status, document)
        return document

    def download(
        self,
        path: str,
        file: IO[bytes],
        showing: Callable[[int], AbstractContextManager[Callable[[int], None]]],
        *,
        wait_s: float,
    ) -> Mapping[str, str]:
        """GET a file into another; the headers of the answer.

        Raises:
            CommandFailed: the node is not running, refused, or did not give all of it.
        """
        got = 0
        with self._asking(wait_s) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status >= 400:
                _fail(answer.status, json.loads(answer.read()))
            total = int(answer.headers.get("content-length", "0"))
            with showing(total) as done:
                while data := answer.read(_BLOCK_BYTES):
                    _write(file, data)
                    got += len(data)
                    done(got)
            if got != total:
                raise CommandFailed("the node did not give all of it; nothing was kept", FAILURE, "See the node's log.")
            return dict(answer.headers)

    @contextlib.contextmanager
    def _asking(self, wait_s: float) -> Iterator[http.client.HTTPConnection]:
        connection = _SocketConnection(socket_of(self.config), wait_s + 60)
        asked = False
        try:
            connection.connect()
            asked = True
            yield connection
        except PermissionError:
            hint = "Run this from the node's account, or from one in the group that its local.group names."
            raise CommandFailed("your account may not use this node", FAILURE, hint, "not-allowed") from None
        except (OSError, http.client.HTTPException):
            hint = f"Start it with: exchange run --config {self.config}"
            if asked:
                raise CommandFailed("the node stopped before it answered", TRY_LATER, hint, "answer-lost") from None
            raise CommandFailed("the node is not running", TRY_LATER, hint, "node-not-running") from None
        finally:
            connection.close()


def _write(file: IO[bytes], data: bytes) -> None:
    try:
        file.write(data)
    except OSError as error:
        raise CommandFailed(f"cannot write the file: {error.strerror}; nothing was kept", FAILURE) from None


class _Told:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], done: Callable[[int], None]) -> None:
        self._file, self._done, self._read = file, done, 0

    def read(self, size_bytes: int = -1) -> bytes:
        """The next part."""
        data = self._file.read(size_bytes)
        self._read += len(data)
        self._done(self._read)
        return data


def _fail(status: int, document: Any) -> NoReturn:
    problem = document if isinstance(document, dict) else {}
    code = str(problem.get("code", ""))
    if code in _TRUST_CODES:
        exit_code = TRUST_REFUSED
    else:
        exit_code = {400: USAGE, 404: NOT_FOUND, 422: INVALID, 503: TRY_LATER}.get(status, FAILURE)
    message = str(problem.get("message", f"the node answered {status}"))
    raise CommandFailed(message, exit_code, str(problem.get("hint", "")), code, findings=problem.get("findings", ()))
