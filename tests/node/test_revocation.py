"""A revocation works without the node, for whoever brings it, against every identity that led to the one in force."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from exchange.crypto.names import Origin
from exchange.crypto.proof import format_proof
from exchange.crypto.signing import SigningKeys, fingerprint, sign_checkpoint
from exchange.crypto.statement import encode_statement, leaf_hash, parse_statement
from exchange.node.errors import RequestInvalid
from exchange.node.revocation import FORMAT, RevocationFile, parse_revocation, prepare_revocation
from exchange.node.services import Services
from exchange.schema.identity import REVOCATION, Revocation, revocation_decoder
from exchange.schema.wire import CARD, VERSION, decode_wire, encode_wire
from tests.node.handmade import Borough
from tests.node.pair import ENFIELD, Node, Pair, form, until

LATER_MS = 60_000


def revocation(signing: SigningKeys, origin: str, *signers: SigningKeys, statement_type: str = REVOCATION) -> bytes:
    """A revocation of keys, in a log that `signers` signed, or they themselves."""
    name = Origin(origin)
    body = Revocation(
        version=VERSION,
        origin=name,
        signing_keys=tuple(key.text() for key in signing.verifiers(name)),
        prepared_at=datetime(2026, 11, 24, tzinfo=UTC),
        nonce=bytes(32),
    )
    statement = encode_statement(statement_type, encode_wire(body))
    note = sign_checkpoint(signers or (signing,), name, 1, leaf_hash(statement), 1_795_449_600)
    return msgspec.json.encode(RevocationFile(format=FORMAT, statement=statement, proof=format_proof(0, (), note)))


async def bring(node: Node, data: bytes) -> tuple[int, Any]:
    """Bring a revocation to a node's public listener, as anybody can."""
    async with node.http.post(f"{node.url}/v1/revocations", data=data) as answer:
        return answer.status, await answer.json()


async def test_a_revoked_peer_is_not_heard_nor_sent_to_from_that_moment(pair: Pair) -> None:
    prepared = await prepare_revocation(pair.hackney.services)
    sent = await pair.hackney.send(ENFIELD)
    await pair.hackney.reached(sent, "received")

    status, _ = await bring(pair.enfield, prepared)

    assert status == 200
    assert await pair.enfield.trust(pair.hackney.origin) == "revoked"
    (alarm,) = await pair.enfield.alarms(pair.hackney.origin)
    assert alarm["kind"] == "revoked"
    messages = pair.enfield.kept()["messages"]
    late = await pair.hackney.send(ENFIELD)

    async def refused() -> bool:
        return pair.enfield.count("envelopes_refused") > 0

    await until("Enfield has refused an envelope", refused)
    assert (await pair.hackney.status(late))["sections"][0]["rung"] is None
    assert pair.enfield.kept()["messages"] == messages


async def test_a_revoked_identity_is_not_registered_again_and_the_same_word_twice_changes_nothing(pair: Pair) -> None:
    prepared = await prepare_revocation(pair.hackney.services)
    async with pair.hackney.http.get(f"{pair.hackney.url}/v1/card") as answer:
        card = await answer.json()
    await bring(pair.enfield, prepared)
    kept = pair.enfield.kept()

    assert (await bring(pair.enfield, prepared))[0] == 200
    status, document = await pair.enfield.local("POST", "/v1/peers", {"card": card})

    assert (status, document["code"]) == (400, "request-invalid")
    assert "revoked" in document["message"]
    assert pair.enfield.kept() == kept


async def test_the_revocation_of_an_identity_from_before_a_rotation_revokes_the_peer(pair: Pair) -> None:
    prepared = await prepare_revocation(pair.hackney.services)
    pair.hackney.clock.now_ms += LATER_MS
    status, document = await pair.hackney.local("POST", "/v1/keys/rotate", {})
    assert status == 200

    async def follows() -> bool:
        found = (await pair.enfield.local("GET", f"/v1/peers/{pair.hackney.origin}"))[1]
        return bool(found["fingerprint"] == document["fingerprint"])

    await until("Enfield follows Hackney", follows)

    assert (await bring(pair.enfield, prepared))[0] == 200

    assert await pair.enfield.trust(pair.hackney.origin) == "revoked"
    revoked = {row[0] for row in pair.enfield.rows("SELECT fingerprint FROM revocations")}
    assert revoked == {document["old_fingerprint"], document["fingerprint"]}


async def test_a_node_whose_keys_are_revoked_shows_that_in_place_of_its_card_and_sends_nothing(pair: Pair) -> None:
    prepared = await prepare_revocation(pair.hackney.services)

    status, document = await pair.hackney.local("POST", "/v1/keys/revoke", {"revocation": json.loads(prepared)})

    assert status == 200
    assert document["peers"] == [{"origin": pair.enfield.origin, "told": True, "reason": None}]
    assert await pair.enfield.trust(pair.hackney.origin) == "revoked"
    async with pair.hackney.http.get(f"{pair.hackney.url}/v1/card") as answer:
        assert msgspec.json.decode(await answer.read(), type=RevocationFile) == msgspec.json.decode(
            prepared, type=RevocationFile
        )
    status, refused = await pair.hackney.local("POST", f"/v1/messages/to/{ENFIELD}", data=form(ENFIELD))
    assert (status, refused["code"]) == (403, "identity-revoked")
    assert (await pair.hackney.local("POST", "/v1/keys/rotate", {}))[0] == 400


async def test_a_peer_that_asks_for_the_card_learns_of_the_revocation(pair: Pair) -> None:
    prepared = await prepare_revocation(pair.hackney.services)
    # As any web server can show it, once the node is gone.
    pair.hackney.services.revoked.keep(prepared)
    pair.hackney.clock.now_ms += 24 * 3_600_000

    async def learnt() -> bool:
        # What does not verify makes Enfield ask for the card, as its schedule does every few hours.
        camden = Borough(pair.hackney.origin, "E09000012", pair.hackney.clock)
        card = await pair.enfield.card()
        made = camden.message(card)
        await pair.enfield.post(camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts))
        return await pair.enfield.trust(pair.hackney.origin) == "revoked"

    await until("Enfield has asked Hackney for its card", learnt)


async def test_what_revokes_nothing_is_refused_without_a_word_and_changes_nothing(pair: Pair) -> None:
    stranger = SigningKeys.generate()
    hackney, enfield = pair.hackney, pair.enfield
    own = hackney.services.keyring.signing
    genuine = json.loads(await prepare_revocation(hackney.services))
    kept = enfield.kept()
    for data in (
        revocation(stranger, hackney.origin),
        revocation(own, hackney.origin, stranger),
        revocation(own, hackney.origin, statement_type=CARD),
        revocation(stranger, "exchange.camden.example"),
        json.dumps(genuine | {"proof": genuine["proof"][:-9]}).encode(),
        json.dumps(genuine | {"format": "exchange-revocation/2"}).encode(),
        json.dumps(genuine | {"more": 1}).encode(),
        b"",
        b"[" * 65_536,
        b" " * 65_537,
    ):
        status, document = await bring(enfield, data)
        assert (status, document["code"]) in {(403, "unacceptable"), (413, "too-large")}, data[:80]
    assert enfield.kept() == kept
    assert await enfield.trust(hackney.origin) == "verified"


async def test_the_revocation_of_another_node_is_not_published_as_ones_own(pair: Pair) -> None:
    prepared = await prepare_revocation(pair.enfield.services)

    status, document = await pair.hackney.local("POST", "/v1/keys/revoke", {"revocation": json.loads(prepared)})

    assert status == 400
    assert "another" in document["message"]
    assert pair.hackney.services.revoked.file is None
    assert await pair.enfield.trust(pair.hackney.origin) == "verified"


@pytest.mark.sqlite
async def test_nothing_of_a_prepared_revocation_stays_in_the_store(services: Services) -> None:
    prepared = msgspec.json.decode(await prepare_revocation(services), type=RevocationFile)
    nonce = decode_wire(revocation_decoder, parse_statement(prepared.statement).body).nonce

    directory = services.configuration.path.parent
    files = [path.read_bytes() for path in directory.iterdir() if path.is_file()]

    assert any(leaf_hash(prepared.statement) in data for data in files)
    assert all(nonce not in data for data in files)


def test_a_revocation_says_whose_it_is_only_where_it_holds() -> None:
    keys = SigningKeys.generate()
    _, body, named = parse_revocation(revocation(keys, "exchange.hackney.example"))

    assert fingerprint(Origin(body.origin), named) == fingerprint(
        Origin("exchange.hackney.example"), keys.verifiers(Origin("exchange.hackney.example"))
    )
    with pytest.raises(RequestInvalid):
        parse_revocation(revocation(keys, "exchange.hackney.example", SigningKeys.generate()))
    with pytest.raises(RequestInvalid):
        parse_revocation(base64.b64encode(b"nothing"))
