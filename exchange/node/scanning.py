"""The scan for viruses, where the plaintext of an attachment first exists: a command, or clamd by INSTREAM.

* The file streams through; it is never in a file, and never whole in memory.
* What the scanner did not clearly say is no answer: the file is given to nobody until it says.
* The name of what it found is the scanner's word: a few harmless characters of it are kept, for this node's admins.

Source of INSTREAM: clamd(8).
"""

import asyncio
import contextlib
import enum
import re
from collections.abc import AsyncIterator
from typing import Final, Protocol

from exchange.node.config import ScanTable

_NAME: Final = re.compile(rb"([A-Za-z0-9._-]{1,100}) FOUND")
_FOUND: Final = 1
_MOST_ANSWER_BYTES: Final = 4096


class Verdict(enum.Enum):
    """What the scanner said."""

    CLEAN = "clean"
    FOUND = "found"
    UNKNOWN = "unknown"


class Scan(Protocol):
    """One file on its way through the scanner."""

    async def feed(self, data: bytes) -> None:
        """Give it the next part."""

    async def verdict(self) -> tuple[Verdict, str]:
        """The end: what it says, and what it found or why it cannot say."""


@contextlib.asynccontextmanager
async def scanning(table: ScanTable) -> AsyncIterator[Scan | None]:
    """A scan of one file; None where nobody is set to look."""
    if table.command:
        async with _by_command(table) as scan:
            yield scan
    elif table.clamd:
        async with _by_clamd(table) as scan:
            yield scan
    else:
        yield None


class _Silent:
    """A scanner that is not there."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def feed(self, data: bytes) -> None:
        pass

    async def verdict(self) -> tuple[Verdict, str]:
        return Verdict.UNKNOWN, self._why


class _Command:
    """The file goes to a command's standard input; its exit code says."""

    def __init__(self, process: asyncio.subprocess.Process, timeout_s: float) -> None:
        self._process, self._timeout_s = process, timeout_s
        self._listens = True

    async def feed(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe, by the call that made it
        if not self._listens:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                self._process.stdin.write(data)
                await self._process.stdin.drain()
        except (ConnectionError, TimeoutError):
            self._listens = False  # it may have seen enough: its exit code says

    async def verdict(self) -> tuple[Verdict, str]:
        assert self._process.stdin is not None  # noqa: S101 - as above
        self._process.stdin.close()
        try:
            async with asyncio.timeout(self._timeout_s):
                code = await self._process.wait()
        except TimeoutError:
            return Verdict.UNKNOWN, "the scanner did not answer in time"
        if code == _FOUND:
            return Verdict.FOUND, "the scanner found something"
        if code == 0 and self._listens:
            return Verdict.CLEAN, ""
        return Verdict.UNKNOWN, f"the scanner ended with {code}" if code else "the scanner did not read the whole file"


@contextlib.asynccontextmanager
async def _by_command(table: ScanTable) -> AsyncIterator[Scan]:
    nowhere = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *table.command, stdin=asyncio.subprocess.PIPE, stdout=nowhere, stderr=nowhere
        )
    except OSError as error:
        yield _Silent(f"the scanner cannot be started: {error.strerror}")
        return
    try:
        yield _Command(process, table.timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class _Clamd:
    """The file goes to clamd, each part behind its length; an empty one is the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        self._reader, self._writer, self._timeout_s = reader, writer, timeout_s
        self._listens = True

    async def feed(self, data: bytes) -> None:
        if not self._listens or not data:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                self._writer.write(len(data).to_bytes(4, "big") + data)
                await self._writer.drain()
        except (ConnectionError, TimeoutError):
            self._listens = False  # over its limit it answers, and hangs up

    async def verdict(self) -> tuple[Verdict, str]:
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._listens:
                    self._writer.write(bytes(4))
                    await self._writer.drain()
                answer = await self._reader.read(_MOST_ANSWER_BYTES)
                while answer and b"\0" not in answer and len(answer) < _MOST_ANSWER_BYTES:
                    more = await self._reader.read(_MOST_ANSWER_BYTES)
                    if not more:
                        break
                    answer += more
        except (ConnectionError, TimeoutError):
            return Verdict.UNKNOWN, "clamd did not answer in time"
        answer = answer.rstrip(b"\0\n")
        if answer == b"stream: OK" and self._listens:
            return Verdict.CLEAN, ""
        if answer.startswith(b"stream: ") and answer.endswith(b" FOUND"):
            name = _NAME.search(answer)
            return Verdict.FOUND, name[1].decode() if name else "the scanner found something"
        return Verdict.UNKNOWN, "clamd could not say: the file may be larger than its StreamMaxLength"


@contextlib.asynccontextmanager
async def _by_clamd(table: ScanTable) -> AsyncIterator[Scan]:
    try:
        async with asyncio.timeout(table.timeout_s):
            reader, writer = await asyncio.open_unix_connection(table.clamd.removeprefix("unix:"))
            writer.write(b"zINSTREAM\0")
    except (OSError, TimeoutError):
        yield _Silent("clamd cannot be reached")
        return
    try:
        yield _Clamd(reader, writer, table.timeout_s)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
