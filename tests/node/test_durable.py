"""A file that is replaced is there whole, the old or the new: also where the disk is full in the middle of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from exchange.node.durable import replace_file
from exchange.node.services import Revoked

_LIMITED = """
import resource, signal, sys
from pathlib import Path
from exchange.node.services import Revoked
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    Revoked(Path(sys.argv[1])).keep(b"x" * 5000)
except OSError:
    sys.exit(9)
"""


def test_a_file_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    replace_file(file, b"old")
    replace_file(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("before", [b"", b"what was there before"])
def test_a_revocation_that_cannot_be_written_whole_leaves_what_was_there(tmp_path: Path, before: bytes) -> None:
    file = tmp_path / "revoked.json"
    if before:
        file.write_bytes(before)
    done = subprocess.run([sys.executable, "-c", _LIMITED, str(file)], check=False)
    assert done.returncode == 9
    assert (file.read_bytes() if file.exists() else b"") == before


def test_a_revocation_is_there_at_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "revoked.json"
    Revoked(file).keep(b"revoked")
    assert Revoked(file).file == b"revoked"
