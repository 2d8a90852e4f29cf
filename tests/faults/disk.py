"""A disk that loses power: what may stand on it is computed from a recording of what a node wrote and synced.

The model is the one that SQLite's authors test with. It is stricter than any file system that we know:

* A write is on the disk for certain once its file has been synced after it. Until then each of its 512-byte sectors may
  be there or not, whatever came before or after.
* A name that was made, changed or removed is so for certain once its directory has been synced. Until then the first
  few of such changes may be there, in their order.
* Where a sync failed, what it was to write may be lost, also if a later sync succeeds (as Linux does).
"""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

_HEAD: Final = struct.Struct("=cBQQI")
_SECTOR: Final = 512
Mode = Literal["dropped", "kept", "prefix", "torn"]
MODES: Final[tuple[Mode, ...]] = ("dropped", "kept", "prefix", "torn")


@dataclass(frozen=True)
class Record:
    """One thing that a node did to its files; see shim.c."""

    operation: str
    failed: bool
    inode: int
    offset: int
    data: bytes


def read_recording(file: Path) -> list[Record]:
    """Everything that was recorded; a record that the end of the node cut off is left out."""
    data, place, records = file.read_bytes(), 0, []
    while place + _HEAD.size <= len(data):
        operation, failed, inode, offset, length = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        if place + length > len(data):
            break
        records.append(Record(operation.decode(), bool(failed), inode, offset, data[place : place + length]))
        place += length
    return records


@dataclass
class _File:
    durable: bytearray
    pending: list[Record] = field(default_factory=list)

    def content(self, chosen: Callable[[Record], Iterator[tuple[int, bytes]]]) -> bytes:
        """What is there where of the pending writes those sectors are that are `chosen`."""
        data = bytearray(self.durable)
        for record in self.pending:
            for offset, part in chosen(record):
                if record.operation == "T":
                    del data[record.offset :]
                    data.extend(bytes(record.offset - len(data)))
                else:
                    data.extend(bytes(max(0, offset - len(data))))
                    data[offset : offset + len(part)] = part
        return bytes(data)


@dataclass
class Disk:
    """A directory as it may be on the disk, from its start on."""

    root: Path
    _files: dict[int, _File] = field(default_factory=dict)
    _names: dict[str, _File] = field(default_factory=dict)
    _durable_names: dict[str, _File] = field(default_factory=dict)
    _changes: list[tuple[str, str, _File | None]] = field(default_factory=list)

    @classmethod
    def of(cls, root: Path) -> "Disk":
        """The disk on which a directory is, all of it synced."""
        disk = cls(root.resolve())
        for path in disk.root.iterdir():
            if path.is_file():
                file = _File(bytearray(path.read_bytes()))
                disk._files[path.stat().st_ino] = file
                disk._names[str(path)] = disk._durable_names[str(path)] = file
        return disk

    def apply(self, record: Record, chance: random.Random) -> None:
        """Go on by one thing that the node did."""
        file = self._files.get(record.inode)
        match record.operation:
            case "C":
                made = self._files[record.inode] = _File(bytearray())
                self._names[record.data.decode()] = made
                self._changes.append(("add", record.data.decode(), made))
            case "W" | "T" if file is not None:
                file.pending.append(record)
            case "S" if file is not None and record.failed:
                file.pending = [item for item in file.pending if chance.random() < 0.5]
            case "S" if file is not None:
                file.durable = bytearray(file.content(_whole))
                file.pending.clear()
            case "D" if not record.failed:
                for change in self._changes:
                    _change(self._durable_names, change)
                self._changes.clear()
            case "R":
                old, new = (part.decode() for part in record.data.split(b"\0"))
                moved = self._names.pop(old, None)
                if moved is not None:
                    self._names[new] = moved
                    # One step in the file system's journal.
                    self._changes.append((old, new, moved))
            case "U":
                self._names.pop(record.data.decode(), None)
                self._changes.append(("remove", record.data.decode(), None))

    def image(self, mode: Mode, chance: random.Random) -> dict[str, bytes]:
        """What may be there when the power goes now, by name."""
        names = dict(self._durable_names)
        count = {"dropped": 0, "kept": len(self._changes)}.get(mode, chance.randint(0, len(self._changes)))
        for change in self._changes[:count]:
            _change(names, change)
        found = {}
        for path, file in names.items():
            if path.endswith(("-shm", ".sock")):
                continue  # shared memory, which is not synced and is made anew
            left = [len(file.pending) if mode == "kept" else chance.randint(0, len(file.pending))]

            def chosen(record: Record, left: list[int] = left) -> Iterator[tuple[int, bytes]]:
                if mode == "dropped":
                    return
                if mode == "torn":
                    yield from (part for part in _sectors(record) if chance.random() < 0.5)
                    return
                left[0] -= 1
                if left[0] >= 0:
                    yield from _whole(record)

            found[Path(path).name] = file.content(chosen)
        return found


def _whole(record: Record) -> Iterator[tuple[int, bytes]]:
    yield record.offset, record.data


def _sectors(record: Record) -> Iterator[tuple[int, bytes]]:
    """A write, cut where sectors of the disk begin; a change of the length is one."""
    if not record.data:
        yield record.offset, b""
    place = 0
    while place < len(record.data):
        size = _SECTOR - (record.offset + place) % _SECTOR
        yield record.offset + place, record.data[place : place + size]
        place += size


def _change(names: dict[str, _File], change: tuple[str, str, _File | None]) -> None:
    kind, path, file = change
    if kind == "remove":
        names.pop(path, None)
        return
    if kind != "add":
        names.pop(kind, None)
    assert file is not None
    names[path] = file


def write_image(image: dict[str, bytes], directory: Path) -> None:
    """Put an image where a node can start on it, in place of what is there."""
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        if path.is_file() or path.is_socket():
            path.unlink()
    for name, data in image.items():
        (directory / name).write_bytes(data)
        (directory / name).chmod(0o600)
