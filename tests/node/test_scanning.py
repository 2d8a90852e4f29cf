"""What a scanner says, and what it does not: a command, and a clamd that speaks INSTREAM."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exchange.node.config import ScanTable
from exchange.node.scanning import Verdict, scanning

DATA = [b"a" * 700_000, b"b" * 700_000, b"c"]


async def verdict(table: ScanTable, parts: list[bytes] = DATA) -> tuple[Verdict, str]:
    async with scanning(table) as scan:
        assert scan is not None
        for part in parts:
            await scan.feed(part)
        return await scan.verdict()


def python(code: str, timeout_s: float = 20) -> ScanTable:
    return ScanTable(command=(sys.executable, "-c", f"import sys\n{code}"), timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("data = sys.stdin.buffer.read(); sys.exit(0 if len(data) == 1400001 else 2)", Verdict.CLEAN),
        ("sys.stdin.buffer.read(); sys.exit(1)", Verdict.FOUND),
        ("sys.stdin.buffer.read(10); sys.exit(1)", Verdict.FOUND),
        ("sys.stdin.buffer.read(); sys.exit(2)", Verdict.UNKNOWN),
        ("sys.stdin.buffer.read(10); sys.exit(0)", Verdict.UNKNOWN),
        ("import os; os.kill(os.getpid(), 9)", Verdict.UNKNOWN),
    ],
)
async def test_an_exit_code_says(code: str, said: Verdict) -> None:
    assert (await verdict(python(code)))[0] is said


async def test_a_command_that_does_not_answer_or_is_not_there_says_nothing() -> None:
    assert (await verdict(python("sys.stdin.buffer.read(); import time; time.sleep(60)", 0.3)))[0] is Verdict.UNKNOWN
    assert (await verdict(python("import time; time.sleep(60)", 0.3)))[0] is Verdict.UNKNOWN
    assert (await verdict(ScanTable(command=("/no/such/scanner",))))[0] is Verdict.UNKNOWN


async def test_where_nobody_is_set_to_look_nobody_does() -> None:
    async with scanning(ScanTable()) as scan:
        assert scan is None


class Clamd:
    """A server of clamd's INSTREAM, as clamd(8) describes it."""

    def __init__(self, most_bytes: int = 10**9, answer: bytes = b"") -> None:
        self.most_bytes, self.answer = most_bytes, answer
        self.seen = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            assert await reader.readexactly(10) == b"zINSTREAM\0"
            while size := int.from_bytes(await reader.readexactly(4), "big"):
                self.seen += await reader.readexactly(size)
                if len(self.seen) > self.most_bytes:
                    writer.write(b"INSTREAM size limit exceeded. ERROR\0")
                    await writer.drain()
                    writer.close()
                    return
            found = b"stream: Eicar-Signature FOUND\0" if b"EICAR" in self.seen else b"stream: OK\0"
            writer.write(self.answer or found)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def listening(clamd: Clamd, directory: Path) -> AsyncIterator[ScanTable]:
    server = await asyncio.start_unix_server(clamd.serve, directory / "clamd.ctl")
    async with server:
        yield ScanTable(clamd=f"unix:{directory}/clamd.ctl", timeout_s=5)


async def test_clamd_is_given_the_whole_file_and_believed(tmp_path: Path) -> None:
    clamd = Clamd()
    async with listening(clamd, tmp_path) as table:
        assert await verdict(table) == (Verdict.CLEAN, "")
    assert clamd.seen == b"".join(DATA)


async def test_what_clamd_finds_is_named(tmp_path: Path) -> None:
    async with listening(Clamd(), tmp_path) as table:
        assert await verdict(table, [b"EICAR"]) == (Verdict.FOUND, "Eicar-Signature")


async def test_a_file_over_clamds_limit_was_not_scanned(tmp_path: Path) -> None:
    async with listening(Clamd(most_bytes=100), tmp_path) as table:
        said, why = await verdict(table)
    assert said is Verdict.UNKNOWN
    assert "clamd" in why


@pytest.mark.parametrize(
    "answer", [b"stream: \0", b"OK\0", b"stream: OK but\0", b"\xff" * 5000, b"stream: OK FOUND?\0"]
)
async def test_an_answer_that_clamd_does_not_give_is_no_answer(tmp_path: Path, answer: bytes) -> None:
    async with listening(Clamd(answer=answer), tmp_path) as table:
        assert (await verdict(table))[0] is Verdict.UNKNOWN


async def test_a_clamd_that_is_not_there_or_hangs_says_nothing(tmp_path: Path) -> None:
    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)
        writer.close()

    assert (await verdict(ScanTable(clamd=f"unix:{tmp_path}/none")))[0] is Verdict.UNKNOWN
    server = await asyncio.start_unix_server(hang, tmp_path / "hangs")
    async with server:
        table = ScanTable(clamd=f"unix:{tmp_path}/hangs", timeout_s=0.2)
        assert (await verdict(table))[0] is Verdict.UNKNOWN
