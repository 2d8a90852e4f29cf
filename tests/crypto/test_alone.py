"""A request that is signed outside the node's log can pass for nothing else."""

import pytest

from exchange.crypto.alone import LOG, sign_alone, verify_alone
from exchange.crypto.errors import CryptoError, NameInvalid
from exchange.crypto.names import Origin, parse_origin
from exchange.crypto.proof import parse_proof, verify_statement
from exchange.crypto.signing import SigningKeys
from exchange.crypto.statement import encode_statement

ORIGIN = Origin("exchange.hackney.example")
KEYS = SigningKeys.generate()
STATEMENT = encode_statement("rejoin", b"\x80")
PROOF = sign_alone(KEYS, STATEMENT, 1_795_449_600)


def test_a_request_verifies_under_the_keys_that_signed_it() -> None:
    verified = verify_alone(STATEMENT, PROOF, KEYS.verifiers(ORIGIN))
    assert (verified.statement.type, verified.index, verified.checkpoint.size) == ("rejoin", 0, 1)


def test_no_node_can_have_the_name_of_its_log() -> None:
    with pytest.raises(NameInvalid):
        parse_origin(LOG)


def test_a_request_is_no_statement_of_the_nodes_log() -> None:
    with pytest.raises(CryptoError):
        verify_statement(STATEMENT, PROOF, ORIGIN, KEYS.verifiers(ORIGIN))


def test_a_statement_of_the_nodes_log_is_no_request() -> None:
    checkpoint = KEYS.sign_checkpoint(ORIGIN, 1, verify_alone(STATEMENT, PROOF, KEYS.verifiers(ORIGIN)).leaf_hash, 1)
    proof = PROOF.replace(parse_proof(PROOF).checkpoint, checkpoint)
    assert verify_statement(STATEMENT, proof, ORIGIN, KEYS.verifiers(ORIGIN)).index == 0
    with pytest.raises(CryptoError):
        verify_alone(STATEMENT, proof, KEYS.verifiers(ORIGIN))


def test_a_request_verifies_under_no_other_keys_and_with_no_other_text() -> None:
    with pytest.raises(CryptoError):
        verify_alone(STATEMENT, PROOF, SigningKeys.generate().verifiers(ORIGIN))
    with pytest.raises(CryptoError):
        verify_alone(encode_statement("rejoin", b"\x81"), PROOF, KEYS.verifiers(ORIGIN))
