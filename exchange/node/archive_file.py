"""The file of a node's backup: records in sealed chunks, written once and read once, in little memory.

* A file gets its name when it is whole and on the disk. What was interrupted bears another name.
* A record is what a reader believes only after the chunks that hold it have opened; that the file is whole shows at its
  end, and nothing that was read counts before that.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from exchange.crypto.archive import (
    CHUNK_BYTES,
    MAGIC,
    MOST_ABOUT_BYTES,
    SEALED_CHUNK_BYTES,
    STREAM_HEADER_BYTES,
    Archived,
    ArchiveReader,
    ArchiveWriter,
)
from exchange.crypto.errors import ArchiveCorrupt
from exchange.crypto.sealing import SealingPrivateKey, SealingPublicKey

_MOST_RECORD_BYTES: Final = 64 * 1024 * 1024


class NodeFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="node", kw_only=True):
    """The configuration file, what a backup of the keys holds, and further files of the directory by name."""

    configuration: str
    keys: dict[str, bytes]
    files: dict[str, bytes]


class TableRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="rows", kw_only=True):
    """Rows of a table of the store."""

    table: Annotated[str, Meta(max_length=63)]
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="end", kw_only=True):
    """How many rows each table has."""

    tables: dict[str, int]


Record: TypeAlias = NodeFiles | TableRows | End

_encode = msgspec.msgpack.Encoder().encode
_decoder: Final[msgspec.msgpack.Decoder[Record]] = msgspec.msgpack.Decoder(NodeFiles | TableRows | End)


class _Stream:
    """Cuts records into chunks."""

    def __init__(self, file: IO[bytes], writer: ArchiveWriter) -> None:
        self._file = file
        self._writer = writer
        self._left = bytearray()
        file.write(writer.head)

    def add(self, record: Record) -> None:
        data = _encode(record)
        self._left += len(data).to_bytes(4, "big") + data
        # The last chunk is written at the end, and says so.
        while len(self._left) > CHUNK_BYTES:
            self._file.write(self._writer.seal(bytes(self._left[:CHUNK_BYTES]), last=False))
            del self._left[:CHUNK_BYTES]

    def end(self) -> None:
        self._file.write(self._writer.seal(bytes(self._left), last=True))


class NewArchive:
    """A backup that is being written; `add` its records, then `finish`."""

    def __init__(self, path: Path, about: Archived, recipients: Sequence[SealingPublicKey]) -> None:
        """Begin to write.

        Raises:
            OSError: it cannot be written.
        """
        self._path = path
        self._partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._stream = _Stream(self._file, ArchiveWriter(about, recipients))

    def add(self, record: Record) -> None:
        """Write one record."""
        self._stream.add(record)

    def finish(self) -> int:
        """Put the file, now whole, in its place; return its length.

        Raises:
            FileExistsError: something is there already.
            OSError: it cannot be written.
        """
        self._stream.end()
        self._file.flush()
        os.fsync(self._file.fileno())
        size_bytes = self._file.tell()
        self._file.close()
        rename_new(self._partial, self._path)
        return size_bytes

    def discard(self) -> None:
        """Leave nothing of what was not finished."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._partial.unlink()


def rename_new(source: Path, target: Path) -> None:
    """Rename a file to a name that is free, durably.

    Raises:
        FileExistsError: it is not free.
        OSError: it cannot be renamed.
    """
    try:
        os.link(source, target)
        source.unlink()
    except FileExistsError:
        raise
    except OSError:
        # Some media have no links; what is between the question and the answer is then a matter of luck.
        if os.path.lexists(target):
            raise FileExistsError(17, "File exists", str(target)) from None
        source.rename(target)
    sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    """Have a directory's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ArchiveFile:
    """A backup that is read."""

    def __init__(self, path: Path) -> None:
        """Read what it says of itself.

        Raises:
            OSError: it cannot be read.
            ArchiveCorrupt: it is none.
        """
        self._file = path.open("rb")
        try:
            if self._file.read(len(MAGIC)) != MAGIC:
                raise ArchiveCorrupt("that is not a backup of a node")
            length = int.from_bytes(self._file.read(4), "big")
            if length > MOST_ABOUT_BYTES:
                raise ArchiveCorrupt("that is not a backup of a node")
            text, header = self._file.read(length), self._file.read(STREAM_HEADER_BYTES)
            self._reader = ArchiveReader(text, header)
        except BaseException:
            self._file.close()
            raise

    @property
    def about(self) -> Archived:
        """What it says of itself."""
        return self._reader.about

    @property
    def key_ids(self) -> tuple[str, ...]:
        """For which keys it was made."""
        return self._reader.key_ids

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def records(self, private: SealingPrivateKey) -> Iterator[Record]:
        """The records. Only when the last has come is the file known to be whole.

        Raises:
            ArchiveRefused: it was made for another key.
            ArchiveCorrupt: it is not whole, or was altered.
        """
        self._reader.unlock(private)
        held, ended = bytearray(), False
        for chunk in self._chunks():
            held += chunk
            while len(held) >= 4:
                length = int.from_bytes(held[:4], "big")
                if length > _MOST_RECORD_BYTES or ended:
                    raise ArchiveCorrupt("the backup has something in it that does not belong there")
                if len(held) < 4 + length:
                    break
                record = _record(bytes(held[4 : 4 + length]))
                del held[: 4 + length]
                ended = isinstance(record, End)
                yield record
        if held or not ended:
            raise ArchiveCorrupt("the backup is not whole: it ends in the middle")

    def _chunks(self) -> Iterator[bytes]:
        sealed = self._file.read(SEALED_CHUNK_BYTES)
        while True:
            following = self._file.read(SEALED_CHUNK_BYTES)
            yield self._reader.open(sealed, last=not following)
            if not following:
                return
            sealed = following


def _record(data: bytes) -> Record:
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ArchiveCorrupt("the backup has something in it that cannot be read") from None
