"""What an agency with a key of its own says: signed by itself, sealed past its node, and by nobody else in its name."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.agency.acknowledging import Word, say, sender_card, sign_word
from exchange.agency.asked import read_question
from exchange.agency.asking import Node as Asking
from exchange.agency.errors import NodeRefused
from exchange.agency.event import QuestionEvent, SectionEvent, parse_event
from exchange.agency.keys import AgencyKeys
from exchange.agency.opening import open_section_event
from exchange.cli.verify import check_document, read_document
from exchange.crypto.names import MessageId, Origin
from exchange.crypto.sealing import SealingPublicKey
from exchange.crypto.statement import leaf_hash, parse_statement
from exchange.schema.acknowledgement import prove_acknowledgement, sign_acknowledgement, signer_of
from exchange.schema.wire import (
    Acknowledgement,
    CardAgency,
    Placement,
    ProvenStatement,
    Rung,
    Words,
    decode_wire,
    manifest_decoder,
    receipt_decoder,
)
from exchange.schema.words import Bond, Holder, Said, seal_words
from tests.node.agency import Agency
from tests.node.handmade import Borough, Desk, is_manifest, read_reply
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, reserved_port, running, until
from tests.node.test_sealed import sealed_agency

CAMDEN = "E09000007"
HOUSING_KEYS = AgencyKeys.generate(Origin("housing.enfield.example"))
COUNTERPART_KEYS = AgencyKeys.generate(Origin("housing.hackney.example"))
ANA = Holder(name="Ana Fictitious", role="Housing officer", contact="020 7946 0000")
OWNED = Word(Rung.OWNED, Said(holder=ANA, note="Keys are at the desk."))
ASKED = Word(Rung.QUERIED, Said(question="Which flat is it?"))


@dataclass
class Sealed:
    """Two nodes, each with a housing agency that has a key of its own, and a sealed section that one has."""

    hackney: Node
    enfield: Node
    counterpart: Agency
    event: SectionEvent
    asking: Asking
    message: str

    async def say(self, word: Word, keys: AgencyKeys = HOUSING_KEYS) -> dict[str, Any]:
        return await asyncio.to_thread(say, self.asking, self.event, word, keys)

    async def housing(self, node: Node) -> dict[str, Any]:
        rows = (await node.status(self.message))["sections"]
        return dict(next(row for row in rows if (row["section"], row["agency"]) == ("housing", "housing")))

    async def at_sender(self, rung: str) -> dict[str, Any]:
        async def there() -> Any:
            found = await self.housing(self.hackney)
            return found if found["rung"] == rung else None

        return dict(await until(f"it is {rung}", there))


@asynccontextmanager
async def sealed_pair(path: Path, clock: Clock) -> AsyncIterator[Sealed]:
    clock.now_ms = int(datetime.now(UTC).timestamp() * 1000)  # as the agency's own clock
    clock.run()
    with reserved_port() as port:
        table = f'[agencies]\naddress = "127.0.0.1:{port}"\n'
        async with (
            running(path / "hackney", HACKNEY, "exchange.hackney.example", clock) as hackney,
            running(path / "enfield", ENFIELD, "exchange.enfield.example", clock, table) as enfield,
            Agency("housing").listening() as housing,
            Agency("housing").listening() as counterpart,
        ):
            await sealed_agency(hackney, counterpart, COUNTERPART_KEYS)
            await sealed_agency(enfield, housing, HOUSING_KEYS)
            await hackney.know(enfield)
            await enfield.know(hackney)
            message = await hackney.send(ENFIELD)

            async def came() -> Any:
                return [event for event in housing.accepted if event["data"]["section"] == "housing"] or None

            event = parse_event(json.dumps((await until("it came", came))[0]).encode())
            assert isinstance(event, SectionEvent)
            _, made = await enfield.local("POST", f"/v1/agencies/{housing.id}/tokens", {})
            asking = Asking(f"http://127.0.0.1:{port}", made["token"])
            yield Sealed(hackney, enfield, counterpart, event, asking, message)


@pytest.fixture
async def at(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Sealed]:
    async with sealed_pair(tmp_path, clock) as made:
        yield made


async def test_an_agency_signs_who_holds_a_section_and_its_node_cannot_read_it(at: Sealed, tmp_path: Path) -> None:
    answer = await at.say(OWNED)
    assert answer["rung"] == "owned"
    found = await at.at_sender("owned")
    assert (found["holder"], found["word"]["signed"], found["word"]["by"]) == (ANA.name, True, "agency")
    assert (found["word"]["note"], found["word"]["sealed"]) == (None, True), "the note is for the counterpart alone"
    own = await at.housing(at.enfield)
    assert (own["rung"], own["holder"], own["word"]["sealed"]) == ("owned", None, True)
    _, document = await at.hackney.local("GET", f"/v1/messages/{at.message}/receipts")
    receipts = [
        decode_wire(receipt_decoder, parse_statement(msgspec.convert(one["statement"], bytes)).body)
        for one in document["receipts"]
    ]
    (receipt,) = [one for one in receipts if one.rung is Rung.OWNED]
    assert receipt.acknowledgement is not None
    proven = prove_acknowledgement(receipt.acknowledgement)
    assert (proven.name, proven.signer) == (HOUSING_KEYS.name, signer_of(HOUSING_KEYS.vkeys()))
    _, described = check_document(read_document(json.dumps(document).encode()), None)
    (owned,) = [one for one in described if one["rung"] == "owned"]
    assert owned["agency_signed"]["name"] == HOUSING_KEYS.name
    assert {one["rung"] for one in described if not one.get("agency_signed")} >= {"received", "routed", "delivered"}


async def test_the_same_signed_word_again_is_answered_as_before_and_not_when_something_was_said_since(
    at: Sealed,
) -> None:
    path = f"/v1/sections/{at.message}/housing"
    card = sender_card(at.event, await asyncio.to_thread(at.asking.ask, "GET", path))
    opened = open_section_event(at.event, HOUSING_KEYS)
    body = sign_word(opened, HOUSING_KEYS, card, OWNED, datetime.now(UTC))
    first = await asyncio.to_thread(at.asking.ask, "POST", f"{path}/own", body)
    assert await asyncio.to_thread(at.asking.ask, "POST", f"{path}/own", body) == first
    await at.say(Word(Rung.OWNED, Said(holder=Holder(name="Ben", role="Duty officer", contact="-"))))
    with pytest.raises(NodeRefused) as refused:
        await asyncio.to_thread(at.asking.ask, "POST", f"{path}/own", body)
    assert refused.value.refusal == "not-said-there"


async def test_a_question_reaches_the_counterpart_alone_and_proven(at: Sealed) -> None:
    await at.say(ASKED)
    found = await at.at_sender("queried")
    assert (found["word"]["question"], found["word"]["sealed"]) == (None, True)
    (listed,) = (await at.hackney.local("GET", "/v1/questions"))[1]["items"]
    assert (listed["question"], listed["sealed"]) == (None, True)

    async def came() -> Any:
        return at.counterpart.accepted or None

    (body,) = await until("the counterpart has it", came)
    event = parse_event(json.dumps(body).encode())
    assert isinstance(event, QuestionEvent)
    question = read_question(event, COUNTERPART_KEYS)
    assert (question.text, question.borough, question.signer) == (
        ASKED.said.question,
        at.enfield.origin,
        HOUSING_KEYS.name,
    )


async def test_neither_the_borough_nor_a_token_alone_speaks_for_an_agency_that_signs(at: Sealed) -> None:
    body = {"name": ANA.name, "role": ANA.role, "contact": ANA.contact}
    path = f"/v1/sections/{at.message}/housing/own"
    status, problem = await at.enfield.local("POST", path, {**body, "agency": "housing"})
    assert (status, problem["code"]) == (403, "agency-signs")
    with pytest.raises(NodeRefused) as refused:
        await asyncio.to_thread(at.asking.ask, "POST", path, body)
    assert refused.value.refusal == "agency-signs"
    stranger = AgencyKeys(HOUSING_KEYS.name, AgencyKeys.generate(HOUSING_KEYS.name).signing, HOUSING_KEYS.sealing)
    with pytest.raises(NodeRefused) as refused:
        await at.say(OWNED, stranger)
    assert refused.value.refusal == "acknowledgement-invalid"


async def test_what_was_signed_without_what_was_sealed_is_refused(at: Sealed) -> None:
    path = f"/v1/sections/{at.message}/housing"
    card = sender_card(at.event, await asyncio.to_thread(at.asking.ask, "GET", path))
    body = sign_word(open_section_event(at.event, HOUSING_KEYS), HOUSING_KEYS, card, OWNED, datetime.now(UTC))
    body["acknowledgement"]["ciphertexts"] = body["acknowledgement"]["ciphertexts"][:1]
    with pytest.raises(NodeRefused) as refused:
        await asyncio.to_thread(at.asking.ask, "POST", f"{path}/own", body)
    assert refused.value.refusal == "words-invalid"
    with pytest.raises(NodeRefused) as refused:
        await asyncio.to_thread(at.asking.ask, "POST", f"{path}/query", body)
    assert refused.value.refusal == "acknowledgement-invalid", "it is another word"


# A node that lies about its agency


@pytest.fixture
async def sent(hackney: Node, desk: Desk, clock: Clock) -> ProvenStatement:
    """A message that was sealed to the key of an agency of the borough made by hand."""
    clock.run()
    desk.borough.card = _with_own_key(desk.borough)  # type: ignore[method-assign]
    await hackney.know(desk.borough)
    await hackney.reached(await hackney.send(CAMDEN), "received")
    desk.borough.shown = len(desk.borough.statements)
    return next(item for item in desk.opened[0].items if is_manifest(item))


def _with_own_key(borough: Borough) -> Any:
    made = borough.card
    agency = CardAgency(kind="housing", key=HOUSING_KEYS.sealing[0].public.raw, signer=signer_of(HOUSING_KEYS.vkeys()))
    return lambda **changes: made(**{"agencies": (agency,), **changes})


@dataclass
class Claim:
    """What a borough claims of its agency."""

    hackney: Node
    borough: Borough
    sent: ProvenStatement
    words: Words
    ciphertexts: tuple[bytes, ...]
    node_key: Any

    def acknowledgement(self, keys: AgencyKeys = HOUSING_KEYS, **changes: Any) -> Any:
        manifest = decode_wire(manifest_decoder, parse_statement(self.sent.statement).body)
        said = Acknowledgement(
            version=1,
            message_id=manifest.message_id,
            leaf_hash=leaf_hash(self.sent.statement),
            section="housing",
            agency="housing",
            rung=Rung.OWNED,
            origin=self.borough.origin,
            recipient=self.hackney.origin,
            at=self.borough.now,
            words=self.words,
        )
        said = msgspec.structs.replace(said, **changes)
        return sign_acknowledgement(said, keys.signing, keys.vkeys(), int(self.borough.now.timestamp()))

    async def send(self, **changes: Any) -> str | None:
        """Send a receipt; the code with which it was refused."""
        placements = (Placement(section="housing", agency="housing"),)
        receipt = self.borough.sign_receipt(self.sent, Rung.OWNED, **{"placements": placements, **changes})
        items = self.borough.latest(receipt)
        envelope = self.borough.envelope(await self.hackney.card(), items, self.ciphertexts)
        status, body = await self.hackney.post(envelope)
        assert status == 200
        (result,) = read_reply(body).results
        return result.problem.code if result.problem else None


@pytest.fixture
async def claim(hackney: Node, desk: Desk, sent: ProvenStatement) -> Claim:
    manifest = decode_wire(manifest_decoder, parse_statement(sent.statement).body)
    bond = Bond(MessageId(manifest.message_id), desk.borough.origin, Origin(hackney.origin))
    node_key = SealingPublicKey((await hackney.card()).sealing_keys[-1].key)
    words, ciphertexts = seal_words(Said(holder=ANA), Rung.OWNED, bond, node_key, None)
    return Claim(hackney, desk.borough, sent, words, ciphertexts, node_key)


async def test_a_lying_node_cannot_say_that_its_agency_has_taken_a_section_on(claim: Claim) -> None:
    kept = claim.hackney.kept()
    assert await claim.send(words=claim.words) == "acknowledgement-unsigned"
    assert await claim.send(words=claim.words, by_borough=True) == "acknowledgement-unsigned"
    after = claim.hackney.kept()
    assert {name for name in after if after[name] != kept[name]} - {"peer_heads", "peer_leaves"} == {"alarms"}
    alarms = await claim.hackney.alarms(claim.borough.origin)
    assert [alarm["kind"] for alarm in alarms] == ["acknowledgement-unsigned"]
    assert claim.hackney.rows("SELECT rung FROM placements WHERE section = 'housing'") == []


async def test_nor_with_keys_of_its_own_or_a_word_of_the_agency_about_something_else(claim: Claim) -> None:
    forged = AgencyKeys.generate(HOUSING_KEYS.name)
    assert await claim.send(acknowledgement=claim.acknowledgement(forged)) == "acknowledgement-unsigned"
    for changes in (
        {"section": "referral"},
        {"rung": Rung.REDIRECTED},
        {"message_id": "0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10"},
        {"leaf_hash": bytes(32)},
        {"recipient": "exchange.brent.example"},
        {"origin": "exchange.brent.example"},
        {"to": "police"},
    ):
        refused = await claim.send(acknowledgement=claim.acknowledgement(**changes))
        assert refused == "acknowledgement-invalid", changes
    signed = claim.acknowledgement()
    bent = msgspec.structs.replace(signed, proof=signed.proof.replace("index 0", "index 1"))
    assert await claim.send(acknowledgement=bent) == "acknowledgement-invalid"
    assert await claim.send(acknowledgement=signed, words=claim.words) == "acknowledgement-invalid"


async def test_what_the_agency_has_signed_counts_once(claim: Claim) -> None:
    signed = claim.acknowledgement()
    assert await claim.send(acknowledgement=signed) is None
    assert claim.hackney.rows("SELECT rung FROM placements WHERE section = 'housing'") == [("owned",)]
    assert await claim.send(acknowledgement=signed) == "acknowledgement-again"


async def test_a_new_card_with_other_keys_changes_nothing_for_what_was_sealed_before(claim: Claim) -> None:
    own = AgencyKeys.generate(HOUSING_KEYS.name)
    agency = CardAgency(kind="housing", key=HOUSING_KEYS.sealing[0].public.raw, signer=signer_of(own.vkeys()))
    card = claim.borough.card(agencies=(agency,))
    await claim.hackney.post(claim.borough.envelope(await claim.hackney.card(), claim.borough.latest(card)))
    assert await claim.send(acknowledgement=claim.acknowledgement(own)) == "acknowledgement-unsigned"
    assert await claim.send(acknowledgement=claim.acknowledgement()) is None


async def test_a_holder_that_nobody_here_can_read_holds_nothing(claim: Claim) -> None:
    manifest = decode_wire(manifest_decoder, parse_statement(claim.sent.statement).body)
    bond = Bond(MessageId(manifest.message_id), claim.borough.origin, Origin(claim.hackney.origin))
    stranger = AgencyKeys.generate(HOUSING_KEYS.name).sealing[0].public
    claim.words, claim.ciphertexts = seal_words(Said(holder=ANA), Rung.OWNED, bond, stranger, None)
    assert await claim.send(acknowledgement=claim.acknowledgement()) == "words-unreadable"
    claim.ciphertexts = ()
    assert await claim.send(acknowledgement=claim.acknowledgement()) == "words-invalid"


async def test_the_card_announces_who_signs(at: Sealed) -> None:
    _, document = await at.hackney.local("GET", f"/v1/peers/{at.enfield.origin}")
    assert document["agency_signers"] == {"housing": (signer_of(HOUSING_KEYS.vkeys()) or b"").hex()}
