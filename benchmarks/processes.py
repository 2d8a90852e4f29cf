"""What the kernel says of processes: CPU that they have used, and the most memory that they have held."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pids: Iterable[int], *, of_ended_children: bool = False) -> float:
    """Seconds of CPU, in the program and in the kernel for it, of all threads together."""
    ticks = 0
    for pid in pids:
        fields = _stat(Path(f"/proc/{pid}/stat"))
        # Fields 14 to 17 of proc_pid_stat(5): user, system, and the same of children that were waited for.
        ticks += sum(map(int, fields[11 : 15 if of_ended_children else 13]))
    return ticks / _TICKS_PER_S


def thread_cpu_s(pid: int, thread: int) -> float:
    """Seconds of CPU that one thread of a process has used."""
    return sum(map(int, _stat(Path(f"/proc/{pid}/task/{thread}/stat"))[11:13])) / _TICKS_PER_S


def peak_mib(pids: Iterable[int]) -> float:
    """The most resident memory that any of them has held, in MiB."""
    return max(_status_kib(pid, "VmHWM") for pid in pids) / 1024


def forget_peak(pids: Iterable[int]) -> None:
    """Have the kernel count the most memory from now on."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def with_children(pid: int) -> list[int]:
    """A process and those that it has started and that run still."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def pin(pid: int, cores: Sequence[int]) -> None:
    """Keep all threads of a process on some cores."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def _stat(file: Path) -> list[str]:
    # The name of the program, in brackets, may hold anything.
    return file.read_text().rpartition(")")[2].split()


def _status_kib(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise RuntimeError(f"the kernel does not tell {key} of process {pid}")
