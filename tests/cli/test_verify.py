"""What `exchange verify` makes of files that hold nothing that could be checked: it is given them by others."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from exchange.cli.client import INVALID
from exchange.cli.verify import verify


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing",
        b"[]",
        b"{}",
        b"\xff",
        json.dumps({"receipts": [], "card": None}).encode(),
        b'{"more": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"statement": "AA==", "proof": 7}',
    ],
    ids=range(8),
)
def test_a_file_that_holds_nothing_to_check_is_named(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "receipts.json"
    file.write_bytes(data)
    result = CliRunner().invoke(verify, [str(file)])
    assert result.exit_code == INVALID, result.output
    assert str(file) in result.output
    assert "Traceback" not in result.output
