"""Mutated bytes at every layer, each time sealed and signed as it should be: refused or taken, and never a fault."""

import io
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.crypto.statement import parse_statement
from exchange.schema.wire import CARD, MANIFEST, RECEIPT, Consistency, ProvenStatement, encode_wire
from tests.node.handmade import Borough, read_reply, seal_to
from tests.node.pair import Node, card_file

mutations = st.lists(
    st.tuples(
        st.sampled_from(("flip", "drop", "insert", "copy", "cut")),
        st.integers(0, 10**6),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)
#: The node is the same for all examples: what one of them leaves behind must not harm the next.
usual = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mutate(data: bytes, steps: list[tuple[str, int, bytes]]) -> bytes:
    out = bytearray(data)
    for kind, where, extra in steps:
        at = where % (len(out) + 1)
        match kind:
            case "flip" if at < len(out):
                out[at] ^= extra[0] or 1
            case "drop":
                del out[at : at + len(extra)]
            case "insert":
                out[at:at] = extra
            case "copy":
                out[at:at] = out[: at // 2]
            case "cut":
                del out[max(at, 1) :]
    return bytes(out)


async def introduce(enfield: Node, camden: Borough) -> None:
    if not camden.statements:
        await enfield.know(camden)


async def healthy(enfield: Node, lines: io.StringIO) -> None:
    assert "request failed" not in lines.getvalue()
    assert (await enfield.local("GET", "/v1/inbox"))[0] == 200


@usual
@given(steps=mutations)
async def test_no_payload_is_a_fault(enfield: Node, camden: Borough, lines: io.StringIO, steps: Any) -> None:
    await introduce(enfield, camden)
    card = await enfield.card()
    made = camden.message(card)
    payload = encode_wire(camden.payload([camden.sign_manifest(made)], made.ciphertexts))
    shown, camden.shown = len(camden.statements), 1
    status, _ = await enfield.post(seal_to(card, mutate(payload, steps)))
    # 503 where the mutation changed what the node is believed to hold, and it would have to ask.
    assert status in (200, 403, 503)
    camden.statements = camden.statements[:1] if status != 200 else camden.statements
    camden.shown = shown if status == 200 else 1
    await healthy(enfield, lines)


@usual
@given(steps=mutations, kind=st.sampled_from((MANIFEST, RECEIPT, CARD, "order")))
async def test_no_signed_statement_is_a_fault(
    enfield: Node, camden: Borough, lines: io.StringIO, steps: Any, kind: str
) -> None:
    await introduce(enfield, camden)
    card = await enfield.card()
    made = camden.message(card)
    body = {
        MANIFEST: lambda: encode_wire(made.manifest),
        RECEIPT: lambda: parse_statement(camden.sign_receipt(camden.sign_manifest(made)).statement).body,
        CARD: lambda: parse_statement(camden.card().statement).body,
        "order": lambda: b"\x80",
    }[kind]()
    item = camden.sign(kind, mutate(body, steps))
    status, answer = await enfield.post(camden.envelope(card, [item], made.ciphertexts))
    assert status == 200
    (result,) = read_reply(answer).results
    assert result.problem is not None or kind in (MANIFEST, CARD, RECEIPT)
    await healthy(enfield, lines)


@usual
@given(steps=mutations)
async def test_no_content_is_a_fault(enfield: Node, camden: Borough, lines: io.StringIO, steps: Any) -> None:
    await introduce(enfield, camden)
    card = await enfield.card()
    content = mutate(msgspec.msgpack.encode({"text": "text", "list": [1, None, True, 1.5, {"a": "b"}]}), steps)
    made = camden.message(card, content=content)
    status, answer = await enfield.post(camden.envelope(card, [camden.sign_manifest(made)], made.ciphertexts))
    assert status == 200
    (result,) = read_reply(answer).results
    assert (result.problem is None) != (result.receipt is None)
    await healthy(enfield, lines)


@usual
@given(steps=mutations)
async def test_no_proof_is_a_fault(enfield: Node, camden: Borough, lines: io.StringIO, steps: Any) -> None:
    await introduce(enfield, camden)
    item = camden.prove(0)
    proof = mutate(item.proof.encode(), steps).decode(errors="replace")
    bent = ProvenStatement(statement=item.statement, proof=proof)
    nothing = Consistency(first=0, path=())
    status, _ = await enfield.post(camden.envelope(await enfield.card(), [bent], consistency=nothing))
    assert status == (200 if proof == item.proof else 403)
    await healthy(enfield, lines)


@usual
@given(
    steps=mutations,
    path=st.sampled_from(("/v1/peers", "/v1/agencies", "/v1/tokens", "/v1/forms/check", "/v1/messages/to/E09000007")),
)
async def test_no_request_to_the_local_api_is_a_fault(
    enfield: Node, camden: Borough, lines: io.StringIO, steps: Any, path: str
) -> None:
    good = {
        "/v1/peers": {"card": card_file(camden.card()), "fingerprint": camden.fingerprint},
        "/v1/agencies": {"kind": "housing", "url": "https://agency.example/hook", "networks": ["10.0.0.0/8"]},
        "/v1/tokens": {"name": "case system", "expires_in_days": 30},
    }.get(path, {"referral": {"from_area": "E09000010", "to_area": "E09000007"}})
    status, document = await enfield.local("POST", path, data=mutate(msgspec.json.encode(good), steps))
    assert status < 500, document
    await healthy(enfield, lines)
