"""The peers that `make bench` measures do the work that it says they do.

Those that need their packages fail where `make .venv/compare` was not run, and say so.
"""

import ast
import hashlib
import subprocess
from pathlib import Path

import pytest

from benchmarks import comparison
from benchmarks.forms import eight_sections

_ROOT = Path(comparison.__file__).parents[1]

#: Tells what becomes of a handover over AS2 of which one byte was changed on the way there, and on the way back.
_TAMPER = """
import logging, sys
from benchmarks.as2 import As2Error, Exchange, make_identity, on_the_wire

def changed(wire):
    middle = len(wire) * 2 // 3
    return wire[:middle] + bytes([wire[middle] ^ 1]) + wire[middle + 1 :]

def outcome(call, *arguments):
    try:
        call(*arguments)
    except As2Error:
        return "refused"
    return "taken"

logging.disable()
form = sys.stdin.buffer.read()
exchange = Exchange(make_identity("hackney", 2048), make_identity("enfield", 2048))
sent, other = exchange.build(form), exchange.build(form)
message, mdn = exchange.receive(on_the_wire(sent))
print(outcome(exchange.receive, changed(on_the_wire(sent))))
print(outcome(exchange.verify, sent, on_the_wire(mdn).replace(b"Reporting-UA: pyAS2", b"Reporting-UA: another")))
print(outcome(exchange.verify, other, on_the_wire(mdn)))
print(outcome(exchange.verify, sent, on_the_wire(mdn)))
"""


@pytest.fixture(scope="module")
def form() -> bytes:
    return eight_sections()


def test_an_absent_environment_is_named_with_its_remedy(
    form: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(comparison, "PYTHON", tmp_path / "python")
    with pytest.raises(comparison.ComparisonError, match=r"make \.venv/compare"):
        comparison.measure(form)


@pytest.mark.parametrize("module", ["as2", "mesh"])
def test_a_peer_imports_nothing_of_the_exchange(module: str) -> None:
    tree = ast.parse((_ROOT / "benchmarks" / f"{module}.py").read_text())
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported
    assert not {name for name in imported if name.split(".")[0] in ("exchange", "benchmarks")}


@pytest.mark.slow
def test_as2_hands_the_form_over_unchanged_and_verifies_the_signed_mdn(form: bytes) -> None:
    found = comparison.run_as2(form, 2048, 0.2)
    assert found.seen.payload_sha256 == hashlib.sha256(form).hexdigest()
    assert (found.seen.cipher, found.seen.digest) == ("aes_256_cbc", "sha256")
    assert (found.seen.mdn, found.seen.mdn_digest) == ("processed", "sha256")
    assert all(work.count == len(work.handovers_ms) > 0 for work in found.works)


@pytest.mark.slow
def test_as2_refuses_a_changed_message_a_changed_mdn_and_the_mdn_of_another_message(form: bytes) -> None:
    done = subprocess.run([comparison.PYTHON, "-c", _TAMPER], input=form, capture_output=True, cwd=_ROOT, timeout=60)
    assert done.stdout.decode().split() == ["refused", "refused", "refused", "taken"], done.stderr.decode()


@pytest.mark.slow
def test_mesh_hands_the_form_over_unchanged_and_its_inbox_is_empty_after_acknowledgement(form: bytes) -> None:
    found = comparison.run_mesh(form, messages=20, timed=5)
    assert found.payload_sha256 == hashlib.sha256(form).hexdigest()
    assert (found.inbox_before_acknowledgement, found.inbox_afterwards) == (1, 0)


@pytest.mark.slow
def test_every_peer_is_measured_and_says_what_it_does(form: bytes) -> None:
    found = comparison.measure(form, seconds=0.2, messages=20, timed=5)
    assert [compared.name.split()[0] for compared in found] == ["AS2", "AS2,", "AS2", "AS2,", "MESH"]
    for compared in found:
        assert compared.does
        assert compared.cpu_ms
        assert compared.cpu_ms > 0
        assert (compared.per_s is None) == (compared.p50_ms is None) == (compared.p99_ms is None)
