"""A backup's file: whole or not there, read in little memory, and refused where it is not what was written."""

import os
import tracemalloc
from pathlib import Path

import pytest

from exchange.crypto.archive import Archived
from exchange.crypto.errors import ArchiveCorrupt, ArchiveError
from exchange.crypto.sealing import SealingPrivateKey
from exchange.node.archive_file import ArchiveFile, End, NewArchive, NodeFiles, Record, TableRows

KEY = SealingPrivateKey.generate()
ABOUT = Archived(
    origin="exchange.hackney.example",
    fingerprint="0" * 64,
    made_at="2026-11-25T10:00:00Z",
    log_size=0,
    revision="0005",
)
FILES = NodeFiles(configuration="", keys={}, files={})


def rows(data: bytes) -> TableRows:
    return TableRows(table="contents", columns=("message", "sections"), rows=[(1, data)])


def write(path: Path, *records: Record) -> None:
    archive = NewArchive(path, ABOUT, [KEY.public])
    for record in records:
        archive.add(record)
    archive.finish()


def read(path: Path) -> list[Record]:
    archive = ArchiveFile(path)
    try:
        return list(archive.records(KEY))
    finally:
        archive.close()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    records = [FILES, rows(b""), rows(os.urandom(200_000)), End(tables={"contents": 2})]
    write(tmp_path / "backup", *records)
    assert read(tmp_path / "backup") == records
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "backup").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write(tmp_path / "backup", FILES, End(tables={}))
    assert (tmp_path / "backup").read_bytes() == b"mine"


def test_what_was_interrupted_has_another_name_and_is_no_backup(tmp_path: Path) -> None:
    archive = NewArchive(tmp_path / "backup", ABOUT, [KEY.public])
    archive.add(FILES)
    archive.add(rows(os.urandom(300_000)))
    (partial,) = tmp_path.iterdir()
    assert partial.name.endswith(".partial")
    cut = tmp_path / "cut"
    archive._file.flush()
    cut.write_bytes(partial.read_bytes())
    with pytest.raises(ArchiveCorrupt, match="not whole"):
        read(cut)
    archive.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]


def test_it_is_whole_or_refused_wherever_it_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path / "backup", FILES, rows(os.urandom(200_000)), End(tables={"contents": 1}))
    data = (tmp_path / "backup").read_bytes()
    for length in {*range(0, len(data), 9973), *range(1500, 2500, 97), len(data) - 1, 65_536, 2 * 65_536}:
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(ArchiveError):
            read(tmp_path / "cut")
    (tmp_path / "cut").write_bytes(data + b"\0")
    with pytest.raises(ArchiveError):
        read(tmp_path / "cut")


@pytest.mark.parametrize(
    "records",
    [
        [],
        [FILES],
        [FILES, End(tables={}), rows(b"")],
        [FILES, End(tables={}), End(tables={})],
    ],
    ids=["nothing", "no-end", "after-the-end", "two-ends"],
)
def test_records_that_do_not_end_with_their_end_are_refused(tmp_path: Path, records: list[Record]) -> None:
    write(tmp_path / "backup", *records)
    with pytest.raises(ArchiveCorrupt):
        read(tmp_path / "backup")


def test_a_large_store_takes_little_memory(tmp_path: Path) -> None:
    block = os.urandom(1024 * 1024)
    tracemalloc.start()
    archive = NewArchive(tmp_path / "backup", ABOUT, [KEY.public])
    archive.add(FILES)
    for _ in range(40):
        archive.add(rows(block))
    archive.add(End(tables={"contents": 40}))
    archive.finish()
    opened = ArchiveFile(tmp_path / "backup")
    count = sum(1 for _ in opened.records(KEY))
    opened.close()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 42
    assert peak_bytes < 12 * 1024 * 1024
