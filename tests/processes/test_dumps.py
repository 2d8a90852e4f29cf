"""What a node holds in memory stays out of files: no core dump, and no swapping where the system lets it."""

import ctypes
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes.conftest import Town
from tests.processes.harness import HACKNEY, until

_PR_GET_DUMPABLE, _PR_CAPBSET_DROP, _CAP_IPC_LOCK = 3, 24, 14
_REPORT = f"""
import ctypes, resource
from exchange.node.hardening import forbid_dumps
before = ctypes.CDLL(None).prctl({_PR_GET_DUMPABLE}, 0, 0, 0, 0)
print(forbid_dumps() or "done", before, ctypes.CDLL(None).prctl({_PR_GET_DUMPABLE}, 0, 0, 0, 0),
    *resource.getrlimit(resource.RLIMIT_CORE))
"""
_LOCK = """
import re, resource
from exchange.node.hardening import lock_memory
before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
said = lock_memory()
assert resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == before[1]
more = bytes(64 * 1024 * 1024)
print(re.search(r"VmLck:\\s+(\\d+)", open("/proc/self/status").read())[1], said)
"""


def bound() -> None:
    """Make the process one that a limit binds; run in the child, before the program."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_IPC_LOCK, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))


def may_lock() -> bool:
    """Whether nothing binds this process."""
    effective = int(re.findall(r"CapEff:\s+([0-9a-f]+)", Path("/proc/self/status").read_text())[0], 16)
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY
    return unlimited or bool(effective >> _CAP_IPC_LOCK & 1)


def locked_kib(pid: int | str) -> int:
    return int(re.findall(r"VmLck:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0])


def test_the_kernel_is_told_to_dump_no_core_into_a_file_or_a_program() -> None:
    told = subprocess.run([sys.executable, "-c", _REPORT], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["done", "1", "0", "0", "0"]
    assert told.stderr == ""


@pytest.mark.slow
def test_a_running_node_may_dump_no_core_and_has_descriptors_to_spare(town: Town) -> None:
    borough = town.borough("hackney", HACKNEY).start()
    assert borough.process is not None
    limits = Path(f"/proc/{borough.process.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 +bytes", limits, re.MULTILINE)
    found = re.search(r"^Max open files +(\d+) +(\d+) ", limits, re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= min(4096, int(found[2]))
    assert borough.ask("health")["protection"]["dumps_off"] is True


def test_a_node_locks_its_memory_where_it_may_and_says_so(town: Town) -> None:
    borough = town.borough("hackney", HACKNEY).start()
    assert borough.process is not None
    protection = borough.ask("health")["protection"]
    assert protection["memory_locked"] is may_lock()
    assert (locked_kib(borough.process.pid) > 10_000) is may_lock()
    assert (protection["reason"] == "") is may_lock()
    assert ("memory is not protected" in borough.log.read_text()) is not may_lock()


def test_a_node_that_may_not_lock_its_memory_runs_and_says_so(town: Town) -> None:
    borough = town.borough("hackney", HACKNEY)
    with borough.log.open("ab") as log:
        borough.process = subprocess.Popen(
            [sys.executable, "-m", "exchange.cli.main", "run", "--config", str(borough.config)],
            stderr=log,
            preexec_fn=bound,
        )
    until("the node answers", borough.answers)
    assert locked_kib(borough.process.pid) == 0
    health = borough.cli("health")
    assert health.code == 0
    assert "memory is not locked: only 64 KiB may be" in health.stderr
    assert borough.ask("health")["protection"] == {
        "dumps_off": True,
        "memory_locked": False,
        "reason": "memory is not locked: only 64 KiB may be",
    }
    assert '"reason": "memory is not locked: only 64 KiB may be"' in borough.log.read_text()


def test_a_process_that_a_limit_binds_locks_nothing_and_goes_on_getting_memory() -> None:
    told = subprocess.run(
        [sys.executable, "-c", _LOCK], capture_output=True, text=True, check=True, preexec_fn=bound
    ).stdout
    assert told == "0 memory is not locked: only 64 KiB may be\n"
