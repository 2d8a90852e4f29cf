"""The model of a disk without power, and the shim that records for it."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.disk import Disk, read_recording
from tests.faults.shim import build

CHANCE = random.Random(1)
_WORK = """
import os, sys
os.chdir(sys.argv[1])
def put(name, data, mode=os.O_WRONLY | os.O_CREAT):
    file = os.open(name, mode, 0o600)
    os.write(file, data)
    return file
{work}
"""


def recorded(directory: Path, work: str, **environment: str) -> Disk:
    """Have a process work on a directory behind the shim; the disk after that."""
    root = directory / "root"
    root.mkdir(exist_ok=True)
    (root / "old").write_bytes(b"old content")
    disk = Disk.of(root)
    shim = {
        "LD_PRELOAD": str(build(directory)),
        "FAULTS_ROOT": str(root),
        "FAULTS_RECORDING": str(directory / "record"),
    }
    script = _WORK.format(work=work)
    subprocess.run([sys.executable, "-c", script, str(root)], check=True, env={**os.environ, **shim, **environment})
    for record in read_recording(directory / "record"):
        disk.apply(record, CHANCE)
    return disk


def test_what_was_not_synced_may_be_lost_and_may_be_there(tmp_path: Path) -> None:
    disk = recorded(tmp_path, "put('old', b'new')")
    assert disk.image("dropped", CHANCE) == {"old": b"old content"}
    assert disk.image("kept", CHANCE) == {"old": b"new content"}


def test_what_was_synced_is_there(tmp_path: Path) -> None:
    disk = recorded(tmp_path, "os.fsync(put('old', b'new'))")
    assert disk.image("dropped", CHANCE) == {"old": b"new content"}


def test_a_write_may_be_torn_at_sectors_and_nowhere_else(tmp_path: Path) -> None:
    disk = recorded(tmp_path, "f = put('old', b'a' * 2048); os.fsync(f); os.pwrite(f, b'b' * 1024, 512)")
    found = {disk.image("torn", CHANCE)["old"] for _ in range(40)}
    a, b = b"a" * 512, b"b" * 512
    assert found == {a + first + second + a for first in (a, b) for second in (a, b)}


def test_a_file_that_was_renamed_is_under_its_new_name_once_the_directory_was_synced(tmp_path: Path) -> None:
    work = "os.fsync(put('new', b'x')); os.rename('new', 'old')"
    disk = recorded(tmp_path, work)
    assert disk.image("dropped", CHANCE) == {"old": b"old content"}
    disk = recorded(tmp_path / ".." / tmp_path.name, work + "; os.fsync(os.open('.', os.O_RDONLY))")
    assert disk.image("dropped", CHANCE) == {"old": b"x"}


def test_a_rename_without_a_sync_of_the_file_may_leave_an_empty_one(tmp_path: Path) -> None:
    disk = recorded(tmp_path, "put('new', b'x'); os.rename('new', 'old')")
    assert {disk.image("prefix", CHANCE)["old"] for _ in range(40)} >= {b"", b"x", b"old content"}


def test_a_truncated_file_is_as_long_as_it_was_until_it_is_synced(tmp_path: Path) -> None:
    disk = recorded(tmp_path, "f = put('old', b''); os.ftruncate(f, 3)")
    assert disk.image("dropped", CHANCE) == {"old": b"old content"}
    assert disk.image("kept", CHANCE) == {"old": b"old"}


@pytest.mark.parametrize(("number", "call"), [(0, "os.fsync(f)"), (1, "os.write(f, b'x')"), (2, "os.pread(f, 1, 0)")])
def test_a_call_fails_when_it_is_told_to(tmp_path: Path, number: int, call: str) -> None:
    control = tmp_path / "control"
    control.write_bytes(b"".join((5 if place == number else 0).to_bytes(4, sys.byteorder) for place in range(4)))
    work = f"""
f = os.open('old', os.O_RDWR)
try:
    {call}
except OSError as error:
    assert error.errno == 5
else:
    sys.exit(1)
"""
    recorded(tmp_path, work, FAULTS_CONTROL=str(control))


def test_what_a_failed_sync_was_to_write_may_be_lost_for_good(tmp_path: Path) -> None:
    work = "f = put('old', b'new'); os.fsync(f)"
    control = tmp_path / "control"
    control.write_bytes((5).to_bytes(4, sys.byteorder) + bytes(12))
    recorded(tmp_path, f"try:\n    {work}\nexcept OSError: pass", FAULTS_CONTROL=str(control))
    (tmp_path / "root" / "old").write_bytes(b"old content")
    failed = read_recording(tmp_path / "record")
    found = set()
    for seed in range(20):
        disk, chance = Disk.of(tmp_path / "root"), random.Random(seed)
        for record in [*failed, *(item for item in failed if item.operation == "O")]:
            disk.apply(record, chance)
        found.add(disk.image("kept", chance)["old"])
    assert found == {b"new content", b"old content"}
