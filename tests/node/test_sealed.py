"""Agencies with keys of their own: proven before they count, sealed to, and given what the node cannot open."""

import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from exchange.agency.errors import KeyNotHere, NotOpened, OtherBorough, SenderChanged
from exchange.agency.event import SectionEvent, parse_event
from exchange.agency.keys import AgencyKeys
from exchange.agency.opening import OpenedSection, open_section_event
from exchange.agency.senders import KnownSenders
from exchange.crypto.errors import PossessionError
from exchange.crypto.names import Origin
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.signing import SigningKeys
from exchange.node.compose import recall_secrets
from exchange.schema.agency_keys import MOST_BYTES, file_bytes, read_challenge
from exchange.schema.card_file import check_card
from exchange.store.messages import keys_of, message_by_id
from tests.node.agency import LOOPBACK, Agency
from tests.node.handmade import CONTENT, Borough, Desk, read_reply
from tests.node.pair import ENFIELD, Clock, Node, Pair, form, until

HOUSING_KEYS = AgencyKeys.generate(Origin("housing.enfield.example"))


@pytest.fixture(autouse=True)
def _time_runs(clock: Clock) -> None:
    clock.run()


@pytest.fixture
async def housing() -> AsyncIterator[Agency]:
    """An agency that listens, takes every webhook, and keeps it."""
    async with Agency("housing").listening() as agency:
        yield agency


def key_of(keys: AgencyKeys) -> Any:
    return json.loads(file_bytes(keys.public()))


async def register(node: Node, agency: Agency, keys: AgencyKeys) -> Any:
    """Register an agency with a key that it has not proven yet; the challenge."""
    body = {"kind": agency.kind, "url": agency.url, "networks": LOOPBACK, "key": key_of(keys)}
    status, document = await node.local("POST", "/v1/agencies", body)
    assert status == 201, document
    agency.secret, agency.id = document["secret"], document["id"]
    agency._registered.set()
    return document["challenge"]


def answer(challenge: Any, keys: AgencyKeys, now_s: int) -> Any:
    return json.loads(file_bytes(keys.answer(read_challenge(json.dumps(challenge).encode()), now_s)))


async def prove(node: Node, agency: Agency, challenge: Any, keys: AgencyKeys) -> tuple[int, Any]:
    body = {"answer": answer(challenge, keys, node.clock() // 1000)}
    return await node.local("POST", f"/v1/agencies/{agency.id}/prove", body)


async def sealed_agency(node: Node, agency: Agency, keys: AgencyKeys = HOUSING_KEYS) -> None:
    """Register an agency and prove its key."""
    status, document = await prove(node, agency, await register(node, agency, keys), keys)
    assert (status, document["ok"]) == (200, True), document


async def announced(pair: Pair, keys: AgencyKeys) -> None:
    """Wait until the sender has the card that names a key."""

    async def heard() -> bool:
        found = (await pair.hackney.local("GET", f"/v1/peers/{pair.enfield.origin}"))[1]
        return bool(found["agency_keys"].get("housing") == keys.sealing[0].public.key_id.hex())

    await until("the sender has the card", heard)


def opened(agency: Agency, keys: AgencyKeys, **options: Any) -> dict[str, OpenedSection]:
    """What an agency opens of what it accepted."""
    events = [parse_event(json.dumps(event).encode()) for event in agency.accepted]
    found = [open_section_event(event, keys, **options) for event in events if isinstance(event, SectionEvent)]
    return {one.section: one for one in found}


async def housing_has(node: Node, message: str) -> Any:
    async def done() -> Any:
        rows = [row for row in (await node.status(message)).get("sections", ()) if row["agency"] == "housing"]
        return rows if rows and {row["rung"] for row in rows} == {"delivered"} else None

    return await until("housing has it", done)


async def test_a_key_counts_and_is_announced_once_it_is_proven(enfield: Node, housing: Agency) -> None:
    challenge = await register(enfield, housing, HOUSING_KEYS)
    card = await enfield.card()
    assert card.agencies == ()
    with pytest.raises(KeyNotHere):
        answer(challenge, AgencyKeys.generate(HOUSING_KEYS.name), 0)
    guess = {"format": "exchange-agency-answer/1", "answer": base64.b64encode(bytes(32)).decode()}
    assert (await enfield.local("POST", f"/v1/agencies/{housing.id}/prove", {"answer": guess}))[0] == 400
    assert (await enfield.card()).agencies == ()
    status, document = await prove(enfield, housing, challenge, HOUSING_KEYS)
    assert (status, document["ok"], document["key_id"]) == (200, True, HOUSING_KEYS.sealing[0].public.key_id.hex())
    ((agency),) = (await enfield.card()).agencies
    assert (agency.kind, agency.key) == ("housing", HOUSING_KEYS.sealing[0].public.raw)
    assert (await enfield.local("GET", f"/v1/agencies/{housing.id}/challenge"))[0] == 404


async def test_a_challenge_goes_to_the_endpoint_as_every_webhook_does_and_its_answer_is_read_to_a_bound(
    enfield: Node, housing: Agency
) -> None:
    await housing.register(enfield)
    place = f"/v1/agencies/{housing.id}"
    _, rotated = await enfield.local("POST", f"{place}/secret", {})
    assert (await enfield.local("POST", f"{place}/key", {"key": key_of(HOUSING_KEYS)}))[0] == 201

    def proof(event: Any) -> bytes:
        challenge = read_challenge(json.dumps(event["data"]["challenge"]).encode())
        return file_bytes(HOUSING_KEYS.answer(challenge, enfield.clock() // 1000))

    housing.status, housing.headers = 200, {"webhook-secret-id": rotated["secret_id"]}
    housing.says = lambda event: proof(event) + b" " * MOST_BYTES + b"{}"
    _, document = await enfield.local("POST", f"{place}/prove", {})
    assert document["ok"] is True, "what is beyond the bound is not read"
    schemes = [one.partition(",")[0] for one in housing.seen[-1]["webhook-signature"].split()]
    assert schemes == ["v1", "v1", "v1a"]
    assert (await enfield.local("GET", place))[1]["rotation"] == "proven"


async def test_an_endpoint_that_says_too_much_or_nothing_to_a_challenge_proves_nothing(
    enfield: Node, housing: Agency
) -> None:
    await register(enfield, housing, HOUSING_KEYS)

    def late(event: Any) -> bytes:
        challenge = read_challenge(json.dumps(event["data"]["challenge"]).encode())
        return b" " * MOST_BYTES + file_bytes(HOUSING_KEYS.answer(challenge, enfield.clock() // 1000))

    for status, says, wrong in (
        (200, late, "does not answer challenges"),
        (204, late, "answered 204 and no proof"),
        (503, late, "answered 503"),
    ):
        housing.status, housing.says = status, says
        code, document = await enfield.local("POST", f"/v1/agencies/{housing.id}/prove", {})
        assert (code, document["ok"], document["released"]) == (200, False, 0)
        assert wrong in document["error"]
    assert (await enfield.card()).agencies == ()
    row = (await enfield.local("GET", f"/v1/agencies/{housing.id}"))[1]
    assert (row["key_id"], row["pending_key_id"]) == (None, HOUSING_KEYS.sealing[0].public.key_id.hex())


@pytest.mark.parametrize("wrong", ["another kind", "another borough", "other signing keys", "no signature"])
async def test_an_answer_for_something_else_proves_nothing(enfield: Node, housing: Agency, wrong: str) -> None:
    challenge = await register(enfield, housing, HOUSING_KEYS)
    if wrong == "another kind":
        with pytest.raises(PossessionError):
            answer(challenge | {"kind": "police"}, HOUSING_KEYS, 0)
    elif wrong == "another borough":
        with pytest.raises(PossessionError):
            answer(challenge | {"origin": "exchange.camden.example"}, HOUSING_KEYS, 0)
    elif wrong == "other signing keys":
        with pytest.raises(PossessionError):
            answer(challenge, AgencyKeys(HOUSING_KEYS.name, SigningKeys.generate(), HOUSING_KEYS.sealing), 0)
    else:
        bare = {
            name: value for name, value in answer(challenge, HOUSING_KEYS, 0).items() if name in ("format", "answer")
        }
        status, _ = await enfield.local("POST", f"/v1/agencies/{housing.id}/prove", {"answer": bare})
        assert status == 400
    assert (await enfield.card()).agencies == ()


async def test_each_kind_has_a_key_of_its_own_and_a_key_is_not_given_twice(enfield: Node, housing: Agency) -> None:
    await sealed_agency(enfield, housing)
    body = {"kind": "police", "url": housing.url, "networks": LOOPBACK, "key": key_of(HOUSING_KEYS)}
    status, document = await enfield.local("POST", "/v1/agencies", body)
    assert (status, document["code"]) == (400, "request-invalid")
    assert [row["kind"] for row in (await enfield.local("GET", "/v1/agencies"))[1]["items"]] == ["housing"]
    status, _ = await enfield.local("POST", f"/v1/agencies/{housing.id}/key", {"key": key_of(HOUSING_KEYS)})
    assert status == 400
    own = next(iter(enfield.services.keyring.sealing.values())).public.raw
    body = {"key": {"format": "exchange-agency-key/1", "key": base64.b64encode(own).decode()}}
    assert (await enfield.local("POST", f"/v1/agencies/{housing.id}/key", body))[0] == 400


async def test_what_is_for_an_agency_alone_goes_to_it_sealed_and_the_node_has_no_secret_of_it(
    pair: Pair, housing: Agency
) -> None:
    await sealed_agency(pair.enfield, housing)
    await announced(pair, HOUSING_KEYS)
    message = await pair.hackney.send(ENFIELD)
    rows = await housing_has(pair.enfield, message)
    found = opened(housing, HOUSING_KEYS, kind="housing")
    assert set(found) == {row["section"] for row in rows}
    alone = {name for name, one in found.items() if one.alone}
    assert "housing" in alone
    assert found["housing"].content["tenure"]
    assert found["housing"].sender == pair.hackney.origin
    assert all("content" not in event["data"] for event in housing.accepted)

    store_key = pair.enfield.services.keyring.store_key
    stored = await pair.enfield.services.store.read(lambda tx: message_by_id(tx, message))
    kept = await pair.enfield.services.store.read(lambda tx: keys_of(tx, stored.number))
    secrets = recall_secrets(store_key, stored.origin, message, kept)
    assert not alone & set(secrets)
    assert set(found) - alone <= set(secrets)
    await pair.hackney.reached(message, "received")

    async def told() -> bool:
        rows = (await pair.hackney.status(message))["sections"]
        return {row["rung"] for row in rows if row["agency"] == "housing"} == {"delivered"}

    await until("the sender has the receipts", told)


async def test_a_sender_with_an_older_card_seals_to_the_node_and_that_is_delivered_opened(
    enfield: Node, desk: Desk, housing: Agency
) -> None:
    await enfield.know(desk.borough)
    old = await enfield.card()
    await sealed_agency(enfield, housing)
    made = desk.borough.message(old, (("housing", ("housing",)),))
    status, _ = await enfield.post(desk.borough.envelope(old, [desk.borough.sign_manifest(made)], made.ciphertexts))
    assert status == 200
    await housing_has(enfield, made.manifest.message_id)
    (event,) = housing.accepted
    assert event["data"]["content"] == {"text": CONTENT}


async def test_an_agency_keeps_its_old_keys_and_opens_what_was_sealed_to_them(pair: Pair, housing: Agency) -> None:
    await sealed_agency(pair.enfield, housing)
    await announced(pair, HOUSING_KEYS)
    housing.status = 503
    message = await pair.hackney.send(ENFIELD)
    await pair.hackney.reached(message, "received")
    new = HOUSING_KEYS.rotated()
    place = f"/v1/agencies/{housing.id}"
    status, claimed = await pair.enfield.local("POST", f"{place}/key", {"key": key_of(new)})
    assert status == 201
    assert (claimed["key_id"], claimed["pending_key_id"]) == (
        HOUSING_KEYS.sealing[0].public.key_id.hex(),
        new.sealing[0].public.key_id.hex(),
    )
    assert (await pair.enfield.card()).agencies[0].key == HOUSING_KEYS.sealing[0].public.raw
    status, document = await prove(pair.enfield, housing, claimed["challenge"], new)
    assert document["ok"] is True
    housing.status = 204
    await housing_has(pair.enfield, message)
    assert opened(housing, new)["housing"].key_id == HOUSING_KEYS.sealing[0].public.key_id
    await announced(pair, new)
    second = await pair.hackney.send(ENFIELD)
    await housing_has(pair.enfield, second)
    assert {one.key_id for one in opened(housing, new).values()} == {new.sealing[0].public.key_id}


async def test_what_an_agency_cannot_open_is_held_and_does_not_stand_in_the_way(pair: Pair, housing: Agency) -> None:
    await sealed_agency(pair.enfield, housing)
    await announced(pair, HOUSING_KEYS)
    housing.status, housing.headers = 422, {"content-type": "application/problem+json"}
    housing.says = lambda _: b'{"code": "not-opened"}'
    message = await pair.hackney.send(ENFIELD)

    async def held() -> bool:
        items = (await pair.enfield.local("GET", "/v1/held"))[1]["items"]
        return ("housing", "agency housing cannot open it") in {(item["agency"], item["reason"]) for item in items}

    await until("it is held", held)
    attempts = (await pair.enfield.local("GET", f"/v1/messages/{message}/attempts"))[1]["items"]
    assert {(one["status"], one["code"]) for one in attempts} == {(422, "not-opened")}
    (alarm,) = (await pair.enfield.local("GET", "/v1/alarms"))[1]["items"]
    assert (alarm["kind"], "cannot open it" in alarm["detail"]) == ("agency-refuses", True)
    housing.status, housing.headers = 204, {}
    await housing_has(pair.enfield, await pair.hackney.send(ENFIELD))
    assert {row["rung"] for row in (await pair.enfield.status(message))["sections"] if row["agency"] == "housing"} == {
        "routed"
    }


async def test_what_was_sealed_to_an_agency_that_has_no_key_any_more_is_held_until_it_has_one(
    pair: Pair, housing: Agency
) -> None:
    await sealed_agency(pair.enfield, housing)
    await announced(pair, HOUSING_KEYS)
    housing.status = 503
    message = await pair.hackney.send(ENFIELD)
    await pair.hackney.reached(message, "received")
    await pair.enfield.local("DELETE", f"/v1/agencies/{housing.id}")
    housing.status = 204
    await housing.register(pair.enfield)
    reason = "it is sealed to a key that agency housing had before"

    async def held() -> bool:
        return reason in {item["reason"] for item in (await pair.enfield.local("GET", "/v1/held"))[1]["items"]}

    await until("it is held", held)
    assert housing.accepted == []
    body = {"key": key_of(HOUSING_KEYS)}
    _, claimed = await pair.enfield.local("POST", f"/v1/agencies/{housing.id}/key", body)
    status, document = await prove(pair.enfield, housing, claimed["challenge"], HOUSING_KEYS)
    assert (status, document["ok"]) == (200, True)
    await housing_has(pair.enfield, message)
    assert opened(housing, HOUSING_KEYS)["housing"].alone


async def test_a_message_that_nobody_here_can_open_is_refused(enfield: Node, desk: Desk) -> None:
    await enfield.know(desk.borough)
    card, stranger = await enfield.card(), SealingPrivateKey.generate()
    made = desk.borough.message(card, (("housing", ("housing",)),), key=stranger.public.raw)
    _, body = await enfield.post(desk.borough.envelope(card, [desk.borough.sign_manifest(made)], made.ciphertexts))
    (result,) = read_reply(body).results
    assert result.problem is not None
    assert result.problem.code == "parcel-missing"


async def test_a_section_that_is_for_others_too_needs_a_parcel_that_the_node_opens(
    enfield: Node, desk: Desk, housing: Agency
) -> None:
    await enfield.know(desk.borough)
    await sealed_agency(enfield, housing)
    card = await enfield.card()
    made = desk.borough.message(card, (("subject", ("housing", "police")),), key=HOUSING_KEYS.sealing[0].public.raw)
    _, body = await enfield.post(desk.borough.envelope(card, [desk.borough.sign_manifest(made)], made.ciphertexts))
    (result,) = read_reply(body).results
    assert result.problem is not None
    assert result.problem.code == "parcel-missing"


async def sealed_event(enfield: Node, desk: Desk, housing: Agency) -> dict[str, Any]:
    """One sealed event as an agency gets it."""
    await enfield.know(desk.borough)
    await sealed_agency(enfield, housing)
    card = await enfield.card()
    made = desk.borough.message(card, (("housing", ("housing",)),), key=HOUSING_KEYS.sealing[0].public.raw)
    await enfield.post(desk.borough.envelope(card, [desk.borough.sign_manifest(made)], made.ciphertexts))
    await housing_has(enfield, made.manifest.message_id)
    return housing.accepted[0]


async def test_what_was_sealed_is_sealed_when_it_is_sent_again(enfield: Node, desk: Desk, housing: Agency) -> None:
    event = await sealed_event(enfield, desk, housing)
    message = event["data"]["message_id"]
    # More than once: in a queue that is empty, SQLite gives the next delivery the number of the one before.
    for times in (2, 3):
        assert len(housing.accepted) == times - 1
        status, resent = await enfield.local("POST", f"/v1/agencies/{housing.id}/replay", {"message_id": message})
        assert (status, resent["sections"]) == (200, 1)

        async def recorded(times: int = times) -> bool:
            found = (await enfield.local("GET", f"/v1/messages/{message}/attempts"))[1]["items"]
            return len(found) == times

        await until("it came again", recorded)
        assert housing.accepted[-1] == event
        assert housing.seen[-1]["webhook-replay"] == "true"


async def test_an_agency_refuses_what_the_node_has_altered(enfield: Node, desk: Desk, housing: Agency) -> None:
    event = await sealed_event(enfield, desk, housing)

    def bent(**changes: Any) -> SectionEvent:
        data = {**event["data"], **{name: value for name, value in changes.items() if name in event["data"]}}
        data["sealed"] = {**data["sealed"], **changes.get("parts", {})}
        read = parse_event(json.dumps({**event, "data": data, **changes.get("outer", {})}).encode())
        assert isinstance(read, SectionEvent)
        return read

    def flipped(name: str, at: int = -1) -> str:
        raw = bytearray(base64.b64decode(event["data"]["sealed"][name]))
        raw[at] ^= 1
        return base64.b64encode(raw).decode()

    whole = open_section_event(bent(), HOUSING_KEYS)
    assert whole.content == {"text": CONTENT}
    assert whole.alone
    for name in ("manifest", "proof", "card", "ciphertext", "parcel"):
        with pytest.raises(NotOpened):
            open_section_event(bent(parts={name: flipped(name, 40)}), HOUSING_KEYS)
    for outer in ({"source": "https://exchange.camden.example"}, {"id": "evt_" + "0" * 32}):
        with pytest.raises(OtherBorough):
            open_section_event(bent(outer=outer), HOUSING_KEYS)
    for said in ({"urgent": True}, {"from": "E09000001"}, {"section": "police"}):
        with pytest.raises(NotOpened):
            open_section_event(bent(**said), HOUSING_KEYS)
    with pytest.raises(OtherBorough):
        open_section_event(bent(), HOUSING_KEYS, kind="police")
    with pytest.raises(KeyNotHere):
        open_section_event(bent(), AgencyKeys.generate(HOUSING_KEYS.name))


async def test_an_agency_holds_a_sender_against_the_cards_that_it_knows(
    enfield: Node, desk: Desk, housing: Agency
) -> None:
    read = parse_event(json.dumps(await sealed_event(enfield, desk, housing)).encode())
    assert isinstance(read, SectionEvent)
    mine = desk.borough.card()
    known = KnownSenders([check_card(mine.statement, mine.proof)])
    assert open_section_event(read, HOUSING_KEYS, known).known
    assert not open_section_event(read, HOUSING_KEYS, KnownSenders()).known
    other = Borough(desk.borough.origin, desk.borough.area, desk.borough._now_ms).card()
    with pytest.raises(SenderChanged):
        open_section_event(read, HOUSING_KEYS, KnownSenders([check_card(other.statement, other.proof)]))


async def test_no_log_line_holds_a_secret_or_content(pair: Pair, housing: Agency, lines: io.StringIO) -> None:
    await sealed_agency(pair.enfield, housing)
    await announced(pair, HOUSING_KEYS)
    await housing_has(pair.enfield, await pair.hackney.send(ENFIELD))
    written = lines.getvalue()
    assert housing.secret not in written
    assert json.loads(form(ENFIELD))["subject"]["name"] not in written
