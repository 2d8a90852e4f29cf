"""A folder for an agency's sections: a JSON file for each, with the event that a webhook would have had as its body.

* A file is there whole or not at all: it is written under another name, synced, renamed, and the folder is synced.
  Only then is anything recorded. After a crash between, the same file is put in its place again.
* Its name is the event's id, which says nothing of anybody.
* The folder is looked at anew for each file, and held by a descriptor: nothing is written through a symlink, nor where
  others could read it, unless an admin said that they may.
* What cannot be put there is tried again as a webhook would be, and the lane says why.
"""

import asyncio
import contextlib
import errno
import functools
import grp
import os
import re
import secrets
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from exchange import crash_points
from exchange.node.agency_client import Answer
from exchange.node.services import Services
from exchange.node.ways import Folder, folder_of
from exchange.store.agencies import AgencyRow
from exchange.store.endpoints import EndpointRow

_FILE: Final = re.compile(r"evt_[0-9a-f]{32}\.json")
_UNFINISHED: Final = re.compile(r"\.evt_[0-9a-f]{32}\.[0-9a-f]{16}\.new")
_UNFINISHED_FOR_S: Final = 3600
_WHY: Final = {
    errno.ENOENT: "is not there",
    errno.ENOTDIR: "is no folder, or a symlink",
    errno.ELOOP: "is a symlink",
    errno.EACCES: "cannot be written by the node's account",
    errno.EPERM: "cannot be written by the node's account",
    errno.EROFS: "is read-only",
    errno.ENOSPC: "is on a disk that is full",
    errno.EDQUOT: "is on a disk that is full for the node's account",
    errno.ENAMETOOLONG: "has too long a name",
}


class FolderUnusable(OSError):
    """Nothing may be put into the folder; the message says why, and names no path."""


class Folders:
    """Puts events into folders: each agency's by a thread of its own, so that a disk that hangs holds up no other."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._threads: dict[str, ThreadPoolExecutor] = {}

    def close(self) -> None:
        """Begin nothing more."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)

    async def drop(self, agency: AgencyRow, endpoint: EndpointRow, event_id: str, body: bytes) -> Answer:
        """Put one event into an agency's folder."""
        services = self._services
        at_ms, began_s = services.now_ms(), time.monotonic()
        threads = self._threads.setdefault(agency.id, ThreadPoolExecutor(1, "folder"))
        why = None
        try:
            async with asyncio.timeout(services.configuration.tables.delivery.agency_timeout_s):
                work = functools.partial(put, folder_of(endpoint), event_id, body)
                await asyncio.get_running_loop().run_in_executor(threads, work)
        except TimeoutError:
            why = "does not answer"
        except OSError as error:
            why = why_not(error)
        said = None if why is None else f"the folder of agency {agency.name} {why}"
        return Answer(at_ms, round((time.monotonic() - began_s) * 1000), error=said)


def why_not(error: OSError) -> str:
    """Why a folder cannot be used, behind its name in a sentence."""
    if isinstance(error, FolderUnusable):
        return str(error)
    return _WHY.get(error.errno or 0, f"cannot be used: {error.strerror or type(error).__name__}")


def put(folder: Folder, event_id: str, body: bytes) -> None:
    """Put a file into a folder; on return it is on the disk.

    Raises:
        OSError: it is not.
    """
    directory = open_folder(folder)
    name, temporary = f"{event_id}.json", f".{event_id}.{secrets.token_hex(8)}.new"
    try:
        if not _is_there(directory, name):
            try:
                _write(directory, temporary, folder, body)
                crash_points.reached("drop.beside")
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                _forget(directory, temporary)
                raise
        os.fsync(directory)
        crash_points.reached("drop.in-place")
    finally:
        os.close(directory)


def open_folder(folder: Folder) -> int:
    """A descriptor of a folder that may be used.

    Raises:
        OSError: it cannot be opened, or may not be used.
    """
    if os.path.realpath(folder.directory) != folder.directory.rstrip("/"):
        # ENOENT comes from opening it; what is left is a link somewhere on the way.
        os.stat(folder.directory)
        raise FolderUnusable("is reached by a symlink")
    directory = os.open(folder.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_rights(os.fstat(directory), folder)
    except BaseException:
        os.close(directory)
        raise
    return directory


def _check_rights(found: os.stat_result, folder: Folder) -> None:
    if folder.shared:
        return
    if found.st_mode & stat.S_IRWXO:
        raise FolderUnusable("is open to others: chmod o= it")
    if found.st_mode & stat.S_IRWXG and (folder.group is None or found.st_gid != _group(folder.group)):
        raise FolderUnusable("is open to a group that is not the agency's: chmod g= it, or name the group")


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise FolderUnusable("is for a group that does not exist") from None


def _is_there(directory: int, name: str) -> bool:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode):
        raise FolderUnusable("holds something else under the name of a section")
    return True


def _write(directory: int, name: str, folder: Folder, body: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
        if folder.group is not None:
            os.fchown(file.fileno(), -1, _group(folder.group))
            os.fchmod(file.fileno(), 0o640)
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _forget(directory: int, name: str) -> None:
    with contextlib.suppress(OSError):  # what is left of it is swept later
        os.unlink(name, dir_fd=directory)


def waiting_files(folder: Folder, now_s: float) -> tuple[int, float]:
    """How many files nobody has taken, and how long the oldest has been there; what a crash left is swept.

    Raises:
        OSError: the folder cannot be looked at.
    """
    directory, dates = open_folder(folder), []
    try:
        for name in os.listdir(directory):
            is_file, is_left = _FILE.fullmatch(name), _UNFINISHED.fullmatch(name)
            if not is_file and not is_left:
                continue
            try:
                at_s = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
            except FileNotFoundError:
                continue
            if is_file:
                dates.append(at_s)
            elif now_s - at_s > _UNFINISHED_FOR_S:
                _forget(directory, name)
    finally:
        os.close(directory)
    return len(dates), max(0.0, now_s - min(dates)) if dates else 0.0
