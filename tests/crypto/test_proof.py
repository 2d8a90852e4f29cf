import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.crypto.checkpoint import CheckpointCache
from exchange.crypto.errors import CryptoError, NoteError, ProofError, SignatureError, StatementError
from exchange.crypto.proof import Proof, format_proof, parse_proof, verify_statement
from exchange.crypto.statement import leaf_hash, parse_statement
from tests.crypto.keys import ENFIELD, HACKNEY, OTHER_SIGNING, SIGNING, STATEMENTS, VERIFIERS, flips, prove

PROOF = prove(STATEMENTS, 3)
HASH = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@pytest.mark.parametrize("cache", [None, CheckpointCache()], ids=["alone", "cached"])
def test_every_statement_of_a_log_verifies(cache: CheckpointCache | None) -> None:
    for index, encoded in enumerate(STATEMENTS):
        verified = verify_statement(encoded, prove(STATEMENTS, index), HACKNEY, VERIFIERS, cache)

        assert verified.statement == parse_statement(encoded)
        assert verified.leaf_hash == leaf_hash(encoded)
        assert verified.index == index
        assert (verified.checkpoint.origin, verified.checkpoint.size) == (HACKNEY, len(STATEMENTS))


@given(st.integers(0, 10**15), st.lists(st.binary(min_size=32, max_size=32), max_size=63), st.text(max_size=50))
def test_what_is_formatted_is_parsed(index: int, path: list[bytes], checkpoint: str) -> None:
    assert parse_proof(format_proof(index, path, checkpoint)) == Proof(index, tuple(path), checkpoint)


def test_a_proof_is_of_no_other_statement() -> None:
    for other in [*STATEMENTS[:3], *STATEMENTS[4:], b"", *flips(STATEMENTS[3])]:
        with pytest.raises(ProofError):
            verify_statement(other, PROOF, HACKNEY, VERIFIERS, CheckpointCache())


def test_a_proof_verifies_at_no_other_index() -> None:
    for index in (*range(3), *range(4, 9), 3 + 8, 2**40):
        with pytest.raises(ProofError):
            verify_statement(STATEMENTS[3], PROOF.replace("index 3\n", f"index {index}\n"), HACKNEY, VERIFIERS)


def test_a_proof_verifies_at_no_other_size() -> None:
    for size in (4, 6, 8, 70):
        changed = PROOF.replace(f"{HACKNEY}\n7\n", f"{HACKNEY}\n{size}\n")
        assert changed != PROOF
        with pytest.raises(SignatureError):
            verify_statement(STATEMENTS[3], changed, HACKNEY, VERIFIERS)


def test_a_proof_verifies_under_no_other_origin_or_key() -> None:
    for origin, keys in [
        (ENFIELD, VERIFIERS),
        (ENFIELD, SIGNING.verifiers(ENFIELD)),
        (HACKNEY, OTHER_SIGNING.verifiers(HACKNEY)),
        (HACKNEY, (VERIFIERS[0], OTHER_SIGNING.verifiers(HACKNEY)[1])),
    ]:
        with pytest.raises(CryptoError):
            verify_statement(STATEMENTS[3], PROOF, origin, keys)


def test_no_character_of_a_proof_can_be_changed() -> None:
    cache = CheckpointCache()
    verify_statement(STATEMENTS[3], PROOF, HACKNEY, VERIFIERS, cache)

    for at, old in enumerate(PROOF):
        for new in "A=\n":
            if new != old:
                with pytest.raises(CryptoError):
                    verify_statement(STATEMENTS[3], PROOF[:at] + new + PROOF[at + 1 :], HACKNEY, VERIFIERS, cache)


def test_a_statement_is_parsed_only_after_its_proof_has_verified() -> None:
    malformed = b"exchange/1 whatever"

    with pytest.raises(ProofError):
        verify_statement(malformed, PROOF, HACKNEY, VERIFIERS)
    with pytest.raises(StatementError):
        verify_statement(malformed, prove([malformed], 0), HACKNEY, VERIFIERS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v1\n",
        "c2sp.org/tlog-proof@v1\n\ncheckpoint",
        "c2sp.org/tlog-proof@v2\nindex 0\n\ncheckpoint",
        "c2sp.org/tlog-proof@v1\r\nindex 0\n\ncheckpoint",
        "c2sp.org/tlog-proof@v1\nindex 00\n\ncheckpoint",
        "c2sp.org/tlog-proof@v1\nindex -1\n\ncheckpoint",
        "c2sp.org/tlog-proof@v1\nindex \u0661\n\ncheckpoint",
        "c2sp.org/tlog-proof@v1\nindex 99999999999999999\n\ncheckpoint",
        "c2sp.org/tlog-proof@v1\nextra AAAA\nindex 0\n\ncheckpoint",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{HASH}\ncheckpoint",
        "c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\ncheckpoint",
        "c2sp.org/tlog-proof@v1\nindex 0\n" + f"{HASH}\n" * 64 + "\ncheckpoint",
    ],
    ids=[
        "empty",
        "header-alone",
        "no-index",
        "other-version",
        "carriage-return",
        "zero-led",
        "negative",
        "not-ascii",
        "too-great",
        "extra-data",
        "no-empty-line",
        "short-hash",
        "too-many-hashes",
    ],
)
def test_what_is_not_a_tlog_proof_is_refused(text: str) -> None:
    with pytest.raises(ProofError):
        parse_proof(text)


@pytest.mark.parametrize("line", [HASH[:-1], HASH.replace("A=", "B="), f" {HASH}", f"{HASH}\r"])
def test_a_hash_that_is_not_canonical_base64_is_refused(line: str) -> None:
    with pytest.raises(NoteError):
        parse_proof(f"c2sp.org/tlog-proof@v1\nindex 0\n{line}\n\ncheckpoint")
