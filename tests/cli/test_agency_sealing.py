from pathlib import Path

import pytest
from click.testing import CliRunner

from exchange.cli.agency_sealing import agency_prove, agency_rekey


@pytest.mark.parametrize("data", [b"", b"{}", b"no JSON", b'{"format": "exchange-agency-key/1", "key": "AA=="}'])
def test_a_file_that_is_no_key_is_named_and_reaches_no_node(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "housing.public"
    file.write_bytes(data)
    done = CliRunner().invoke(agency_rekey, ["agency-1", "--sealed-key", str(file), "--config", str(tmp_path / "none")])
    assert done.exit_code == 5
    assert f"{file}: " in done.output
    assert "nothing was changed" in done.output


def test_a_file_that_is_no_answer_is_named_and_reaches_no_node(tmp_path: Path) -> None:
    file = tmp_path / "answer"
    file.write_bytes(b"{}")
    done = CliRunner().invoke(agency_prove, ["agency-1", "--answer", str(file), "--config", str(tmp_path / "none")])
    assert (done.exit_code, f"{file}: that is not an answer to a challenge; nothing was changed" in done.output) == (
        5,
        True,
    )
