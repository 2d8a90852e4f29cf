"""Cards that peers send: a newer one of the same identity is kept, and no other."""

from typing import Any

import msgspec
import pytest

from exchange.schema.wire import CARD, Card, CardSealingKey, ProvenStatement, encode_wire
from tests.node.handmade import Borough, read_card, read_reply
from tests.node.pair import Node


async def show(node: Node, camden: Borough, *cards: ProvenStatement) -> list[str | None]:
    """Send cards; return the code of each that was refused."""
    status, body = await node.post(camden.envelope(await node.card(), camden.latest(*cards)))
    assert status == 200
    return [result.problem.code if result.problem else None for result in read_reply(body).results]


async def known(node: Node, camden: Borough) -> dict[str, Any]:
    """What the node knows of the peer."""
    found = (await node.local("GET", f"/v1/peers/{camden.origin}"))[1]
    return {key: found[key] for key in ("serial", "url", "name", "area", "fingerprint", "trust")}


async def test_a_newer_card_takes_the_place_of_the_older_one(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    assert await show(enfield, camden, camden.card(url="https://new.camden.example", name="New name")) == [None]
    found = await known(enfield, camden)
    assert (found["serial"], found["url"], found["name"]) == (2, "https://new.camden.example", "New name")
    assert found["trust"] == "verified"


@pytest.mark.parametrize("serial", [0, 1, 2])
async def test_a_serial_never_goes_back(enfield: Node, camden: Borough, serial: int) -> None:
    await enfield.know(camden)
    assert await show(enfield, camden, camden.card()) == [None]
    before = await known(enfield, camden)
    await show(enfield, camden, camden.card(serial=serial, url="https://old.camden.example"))
    assert await known(enfield, camden) == before


async def test_of_two_cards_at_once_the_newer_stays(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    older, newer = camden.card(url="https://older.example"), camden.card(url="https://newer.example")
    assert await show(enfield, camden, newer, older) == [None, None]
    assert (await known(enfield, camden))["url"] == "https://newer.example"


def signed_by_another(camden: Borough, **changes: Any) -> ProvenStatement:
    """A card of other keys, in the log of the peer."""
    other = Borough(changes.pop("origin", camden.origin), camden.area, camden._now_ms)
    card = read_card(other.card(**({"serial": 9} | changes)))
    return camden.sign(CARD, encode_wire(card))


def changed(camden: Borough, **changes: Any) -> ProvenStatement:
    return camden.card(**changes)


def with_raw(camden: Borough, **changes: Any) -> ProvenStatement:
    body = msgspec.msgpack.decode(camden.card().statement.split(b" ", 4)[4])
    return camden.sign(CARD, msgspec.msgpack.encode(body | changes))


@pytest.mark.parametrize(
    ("make", "changes", "code"),
    [
        (signed_by_another, {}, "card-invalid"),
        (signed_by_another, {"origin": "exchange.brent.example"}, "card-invalid"),
        (changed, {"origin": "exchange.brent.example"}, "card-invalid"),
        (changed, {"origin": "Exchange.Camden.Example"}, "card-invalid"),
        (changed, {"origin": ""}, "card-invalid"),
        (changed, {"area": "E09000005"}, "card-identity"),
        (changed, {"signing_keys": ("x", "y")}, "card-invalid"),
        (changed, {"sealing_keys": ()}, "card-invalid"),
        (changed, {"version": 2}, "card-invalid"),
        (with_raw, {"more": 1}, "card-invalid"),
        (with_raw, {"url": ""}, "card-invalid"),
        (with_raw, {"serial": -1}, "card-invalid"),
        (with_raw, {"expires_at": "2027-01-01T00:00:00"}, "card-invalid"),
    ],
)
async def test_a_card_of_another_identity_or_form_is_refused(
    enfield: Node, camden: Borough, make: Any, changes: dict[str, Any], code: str
) -> None:
    await enfield.know(camden)
    before, kept = await known(enfield, camden), enfield.kept()
    assert await show(enfield, camden, make(camden, **changes)) == [code]
    assert await known(enfield, camden) == before
    assert enfield.kept() == kept
    assert enfield.count(f"items_refused_{code}") == 1


async def test_the_signing_keys_in_the_other_order_are_refused(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    keys = tuple(key.text() for key in camden.signing.verifiers(camden.origin))
    assert await show(enfield, camden, camden.card(signing_keys=keys[::-1])) == ["card-invalid"]


async def test_the_card_names_the_sealing_keys_that_the_node_holds(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    card: Card = await enfield.card()
    assert [key.key for key in card.sealing_keys] == [
        key.public.raw for key in enfield.services.keyring.sealing.values()
    ]
    assert all(isinstance(key, CardSealingKey) for key in card.sealing_keys)
