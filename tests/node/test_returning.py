"""What a peer that was restored is told, and that nobody else is told anything."""

import hashlib
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from exchange.crypto.alone import sign_alone
from exchange.crypto.checkpoint import parse_checkpoint
from exchange.crypto.envelope import open_reply
from exchange.crypto.proof import verify_statement
from exchange.crypto.statement import encode_statement, leaf_hash, parse_statement
from exchange.node.mirroring import leads_to
from exchange.schema.rejoining import (
    REJOIN,
    REJOIN_TYPE,
    Ask,
    RejoinAnswer,
    RejoinRequest,
    rejoin_answer_decoder,
)
from exchange.schema.wire import (
    CARD,
    SIGHTINGS,
    VERSION,
    EnvelopePayload,
    Leaves,
    ProvenStatement,
    Sightings,
    decode_wire,
    encode_wire,
)
from tests.node.handmade import REPLY_SECRET, Borough, Desk, read_reply, seal_to
from tests.node.pair import Clock, Node, until


def question(borough: Borough, to: Node, **changes: Any) -> ProvenStatement:
    """A question of a borough made by hand."""
    ask = Ask(
        version=VERSION,
        origin=borough.origin,
        recipient=to.origin,
        size=0,
        holds=0,
        since=borough.now - timedelta(days=14),
        skip=0,
        at=borough.now,
        answer=hashlib.sha256(REPLY_SECRET.reveal()).digest(),
    )
    statement = encode_statement(REJOIN, encode_wire(msgspec.structs.replace(ask, **changes)))
    return ProvenStatement(statement=statement, proof=sign_alone(borough.signing, statement, 1))


async def sealed(borough: Borough, to: Node, asked: ProvenStatement, secret: bytes | None = None) -> bytes:
    request = RejoinRequest(
        version=VERSION, sender=borough.origin, ask=asked, reply_secret=secret or REPLY_SECRET.reveal()
    )
    return seal_to(await to.card(), encode_wire(request))


async def post(to: Node, body: bytes) -> tuple[int, bytes]:
    async with to.http.post(f"{to.url}/v1/rejoin", data=body, headers={"content-type": REJOIN_TYPE}) as answer:
        return answer.status, await answer.read()


async def ask(borough: Borough, to: Node, **changes: Any) -> RejoinAnswer:
    status, body = await post(to, await sealed(borough, to, question(borough, to, **changes)))
    assert status == 200, body
    return decode_wire(rejoin_answer_decoder, open_reply(REPLY_SECRET, body))


async def met(borough: Borough, node: Node) -> list[ProvenStatement]:
    """The node has taken a message of the borough, and the borough's leaf hashes with it."""
    made = borough.message(await node.card())
    manifest = borough.sign_manifest(made)
    status, body = await node.post(borough.envelope(await node.card(), [manifest], made.ciphertexts))
    assert status == 200
    receipt = read_reply(body).results[0].receipt
    assert receipt is not None
    return [manifest, receipt]


async def test_a_peer_gets_back_its_statements_and_what_was_signed_for_them(
    enfield: Node, camden: Borough, clock: Clock
) -> None:
    await enfield.know(camden)
    manifest, _ = await met(camden, enfield)

    answer = await ask(camden, enfield)

    keys = camden.signing.verifiers(camden.origin)
    assert answer.checkpoint is not None
    assert parse_checkpoint(answer.checkpoint, camden.origin, keys).size == len(camden.statements)
    returned = [verify_statement(item.statement, item.proof, camden.origin, keys) for item in answer.yours]
    assert [one.index for one in returned] == [0, 1]
    assert [one.statement.type for one in returned] == [CARD, "manifest"]
    assert answer.yours[1].statement == manifest.statement
    assert answer.left == 0
    assert [alarm["kind"] for alarm in await enfield.alarms(camden.origin)] == ["peer-restored"]


async def test_a_peer_gets_back_what_it_said_last_that_it_has_seen(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    for _ in range(2):
        body = encode_wire(Sightings(version=VERSION, at=camden.now, seen_sha256=bytes(32)))
        said = camden.sign(SIGHTINGS, body)
        assert (await enfield.post(camden.envelope(await enfield.card(), camden.latest(said))))[0] == 200

    answer = await ask(camden, enfield)

    assert [item.statement for item in answer.yours if parse_statement(item.statement).type == SIGHTINGS] == [
        said.statement
    ]


async def test_it_gets_only_what_it_lacks(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    await met(camden, enfield)
    answer = await ask(camden, enfield, size=len(camden.statements))
    assert (answer.leaves, answer.yours) == ((), ())


async def test_what_does_not_fit_into_one_answer_comes_in_parts(
    enfield: Node, camden: Borough, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enfield.know(camden)
    for _ in range(3):
        await met(camden, enfield)
    whole = await ask(camden, enfield)
    monkeypatch.setattr("exchange.node.returning._MOST_BYTES", 0)
    yours: list[ProvenStatement] = []
    for skip in range(20):
        clock.now_ms += 1
        part = await ask(camden, enfield, skip=skip)
        yours += part.yours
        assert len(part.leaves) + len(part.yours) + len(part.mine) == 1
        if not part.left:
            break
    assert tuple(yours) == whole.yours
    assert len(whole.yours) == 4


async def test_a_question_that_was_recorded_is_not_answered_again(enfield: Node, camden: Borough, clock: Clock) -> None:
    await enfield.know(camden)
    recorded = await sealed(camden, enfield, question(camden, enfield))
    assert (await post(enfield, recorded))[0] == 200
    assert (await post(enfield, recorded))[0] == 403
    clock.now_ms += 1
    assert (await post(enfield, recorded))[0] == 403
    assert (await post(enfield, await sealed(camden, enfield, question(camden, enfield))))[0] == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"recipient": "exchange.hackney.example"},
        {"origin": "exchange.hackney.example"},
        {"answer": bytes(32)},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_question_that_says_something_else_is_not_answered(
    enfield: Node, camden: Borough, changes: dict[str, Any]
) -> None:
    await enfield.know(camden)
    assert (await post(enfield, await sealed(camden, enfield, question(camden, enfield, **changes))))[0] == 403


@pytest.mark.parametrize("minutes", [-11, 11])
async def test_a_question_of_another_time_is_not_answered(enfield: Node, camden: Borough, minutes: int) -> None:
    await enfield.know(camden)
    asked = question(camden, enfield, at=camden.now + timedelta(minutes=minutes))
    assert (await post(enfield, await sealed(camden, enfield, asked)))[0] == 403


async def test_who_has_only_what_is_public_of_a_peer_is_told_nothing(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    card = camden.latest(camden.prove(0))[0]
    for asked in (
        card,
        camden.sign(
            REJOIN,
            encode_wire(
                Ask(
                    version=VERSION,
                    origin=camden.origin,
                    recipient=enfield.origin,
                    size=0,
                    holds=0,
                    since=camden.now,
                    skip=0,
                    at=camden.now,
                    answer=hashlib.sha256(REPLY_SECRET.reveal()).digest(),
                )
            ),
        ),
    ):
        status, body = await post(enfield, await sealed(camden, enfield, asked))
        assert status == 403
        assert msgspec.json.decode(body)["code"] == "unacceptable"
    assert await enfield.alarms(camden.origin) == []


async def test_who_changes_the_secret_of_the_answer_gets_none(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    status, _ = await post(enfield, await sealed(camden, enfield, question(camden, enfield), bytes(32)))
    assert status == 403


async def test_a_peer_that_is_not_verified_is_told_nothing(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden, verified=False)
    assert (await post(enfield, await sealed(camden, enfield, question(camden, enfield))))[0] == 403
    assert (await post(enfield, b"nothing"))[0] == 403
    assert (await post(enfield, bytes(70_000)))[0] == 413


async def test_leaf_hashes_are_kept_where_they_lead_to_the_checkpoint(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    true = b"".join(leaf_hash(statement) for statement in camden.statements)
    card = camden.card()
    more = true + leaf_hash(camden.statements[-1])
    for hashes in (more[:-32], more[:-1] + b"x", more + bytes(32), more[32:]):
        leaves = Leaves(first=0, frontier=b"", hashes=hashes)
        assert (await enfield.post(camden.envelope(await enfield.card(), [card], leaves=leaves)))[0] == 200
        assert (await ask_later(camden, enfield)).leaves == ()
    leaves = Leaves(first=0, frontier=b"", hashes=more)
    status, body = await enfield.post(camden.envelope(await enfield.card(), [card], leaves=leaves))
    assert status == 200
    assert read_reply(body).keeps == len(camden.statements)
    assert b"".join(run.hashes for run in (await ask_later(camden, enfield)).leaves) == more


async def ask_later(borough: Borough, to: Node) -> RejoinAnswer:
    to.clock.now_ms += 1
    return await ask(borough, to)


async def test_a_node_gives_its_leaf_hashes_once_its_peer_has_said_what_it_keeps(
    hackney: Node, camden: Borough, desk: Desk
) -> None:
    await hackney.know(camden)
    given: list[EnvelopePayload] = []

    def bend(_: Desk, opened: EnvelopePayload) -> None:
        given.append(opened)

    desk.bend = bend
    await hackney.send(camden.area)
    await hackney.send(camden.area)

    async def both() -> bool:
        return len(given) == 2 and given[1].leaves is not None

    await until("leaf hashes came", both)
    checkpoint = parse_checkpoint(
        given[1].items[0].proof.partition("\n\n")[2],
        hackney.services.configuration.origin,
        hackney.services.keyring.verifiers,
    )
    assert leads_to(checkpoint, given[1].leaves)
