import json
from pathlib import Path

import pytest

from tests.vectors import generate
from tests.vectors.generate import KINDS, main, path_of, problem_with


@pytest.mark.parametrize("name", KINDS)
def test_the_committed_vectors_hold(name: str) -> None:
    assert problem_with(name) is None, "run make vectors, and say in the change why they had to change"


def test_every_file_has_cases_that_hold_and_cases_that_are_refused() -> None:
    for name in KINDS:
        refused = {case.get("refused", False) for case in json.loads(path_of(name).read_text())}
        assert refused == {False, True}, name


def test_a_changed_vector_is_found_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "HERE", tmp_path)
    assert main([]) == 0
    kept = (tmp_path / "parcels.json").read_text()
    assert main(["--check"]) == 0

    statements = (tmp_path / "statements.json").read_text()
    (tmp_path / "statements.json").write_text(statements.replace("626f6479", "626f6478", 1))
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert (tmp_path / "statements.json").read_text() == statements
    assert (tmp_path / "parcels.json").read_text() == kept
