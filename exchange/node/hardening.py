"""Keep what the process has in memory out of files: no core dump, and no swapping where the system lets us.

* A node that may not lock its memory runs all the same, and says so in its log, in `health` and in `keys status`.
* Memory is locked as it is used and not before (MCL_ONFAULT), so that stacks and arenas cost no more than without.
* Where a limit would hold, nothing is locked: with MCL_FUTURE, a process that reaches it gets no more memory at all.
"""

import ctypes
import errno
import os
import resource
from dataclasses import dataclass
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_MCL_ALL: Final = 1 | 2 | 4  # MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT


@dataclass(frozen=True, slots=True)
class Protection:
    """What of the process' memory stays in memory; `reason` says why not all does."""

    dumps_off: bool = False
    memory_locked: bool = False
    reason: str = "nothing was asked of the system"


def harden() -> Protection:
    """Forbid core dumps and lock all memory, now and from now on, as far as the system lets us."""
    undumpable, locked = forbid_dumps(), lock_memory()
    return Protection(not undumpable, not locked, "; ".join(text for text in (undumpable, locked) if text))


def forbid_dumps() -> str:
    """Leave no core dump, which would hold keys and content in clear, and let no other program of this user look in.

    Returns what stands against it, if anything does.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Where the kernel pipes core dumps to a program it does not ask for the limit; it asks for this.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        return f"core dumps may be made: {os.strerror(ctypes.get_errno())}"
    return ""


def lock_memory() -> str:
    """Lock the process' memory, so that it is not swapped; returns what stands against it, if anything does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
        return _mlockall("")
    # With a limit of nothing, the kernel says yes only to one whom no limit binds (CAP_IPC_LOCK).
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, hard))
    refused = _mlockall(f"memory is not locked: only {hard // 1024} KiB may be")
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))
    return refused


def _mlockall(if_bound: str) -> str:
    if ctypes.CDLL(None, use_errno=True).mlockall(_MCL_ALL) == 0:
        return ""
    code = ctypes.get_errno()
    bound = code in (errno.EPERM, errno.ENOMEM)
    return if_bound if bound and if_bound else f"memory is not locked: {os.strerror(code)}"
