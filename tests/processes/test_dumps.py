"""A core dump would hold keys and content in clear: a node makes none."""

import re
import subprocess
import sys
from pathlib import Path

from tests.processes.conftest import Town
from tests.processes.harness import HACKNEY

_PR_GET_DUMPABLE = 3
_REPORT = f"""
import ctypes, resource
from exchange.node.app import forbid_dumps
before = ctypes.CDLL(None).prctl({_PR_GET_DUMPABLE}, 0, 0, 0, 0)
forbid_dumps()
print(before, ctypes.CDLL(None).prctl({_PR_GET_DUMPABLE}, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_the_kernel_is_told_to_dump_no_core_into_a_file_or_a_program() -> None:
    told = subprocess.run([sys.executable, "-c", _REPORT], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["1", "0", "0", "0"]
    assert told.stderr == ""


def test_a_running_node_may_dump_no_core_and_has_descriptors_to_spare(town: Town) -> None:
    borough = town.borough("hackney", HACKNEY).start()
    assert borough.process is not None
    limits = Path(f"/proc/{borough.process.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 +bytes", limits, re.MULTILINE)
    found = re.search(r"^Max open files +(\d+) +(\d+) ", limits, re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= min(4096, int(found[2]))
