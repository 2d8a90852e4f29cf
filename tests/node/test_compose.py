"""Composing a message: who can open what follows from the parts' readers and the card, and from nothing else."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.crypto.errors import ParcelError, RestError
from exchange.crypto.names import MessageId, Origin, SectionName, new_message_id
from exchange.crypto.parcel import open_parcel
from exchange.crypto.rest import StoreKey
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, open_section
from exchange.node.compose import Composed, compose_message, current_sealing_key, keep_secrets, recall_secrets
from exchange.node.errors import NoCurrentKey
from exchange.schema.split import FormPart
from exchange.schema.wire import CardAgency, CardSealingKey, decode_wire, manifest_decoder
from tests.node.handmade import CONTENT, Borough, read_card
from tests.node.pair import NOW_MS

HACKNEY = Origin("exchange.hackney.example")
CAMDEN = Borough("exchange.camden.example", "E09000007", lambda: NOW_MS)
CARD = read_card(CAMDEN.card())
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
KINDS = ("housing", "police", "probation", "dwp")
OWN_KEYS = {kind: SealingPrivateKey.generate() for kind in KINDS}
STORE_KEY = StoreKey.random()
MESSAGE = new_message_id(0)

readers = st.lists(st.sampled_from(KINDS), min_size=1, unique=True).map(tuple)
contents = st.dictionaries(st.text(max_size=10), st.text(max_size=200), max_size=3)
parts = st.lists(st.tuples(readers, contents), min_size=1, max_size=5).map(
    lambda found: [FormPart(SectionName(f"part-{number}"), *one) for number, one in enumerate(found)]
)


def compose(parts: list[FormPart], sealed: tuple[str, ...] = ()) -> Composed:
    agencies = tuple(CardAgency(kind=kind, key=OWN_KEYS[kind].public.raw) for kind in sealed)
    return compose_message(
        parts,
        message_id=MESSAGE,
        sender=HACKNEY,
        from_area="E09000012",
        card=msgspec.structs.replace(CARD, agencies=agencies),
        node_key=CAMDEN.sealing.public,
        store_key=STORE_KEY,
        created_at=NOW,
        expires_at=NOW + timedelta(days=13),
        urgent=False,
    )


def opens(composed: Composed, key: SealingPrivateKey) -> Mapping[SectionName, Secret]:
    """What one key opens of a message: every parcel is tried."""
    found: dict[SectionName, Secret] = {}
    for entry in composed.manifest.parcels:
        try:
            found |= open_parcel(entry.parcel, key, HACKNEY, CAMDEN.origin, MESSAGE)
        except ParcelError:
            continue
    return found


@settings(max_examples=30, deadline=None)
@given(parts, st.lists(st.sampled_from(KINDS), unique=True).map(tuple))
def test_each_key_opens_the_sections_of_its_readers_and_no_other(
    parts: list[FormPart], sealed: tuple[str, ...]
) -> None:
    composed = compose(parts, sealed)
    for kind in KINDS:
        wanted = {part.name for part in parts if kind in part.readers} if kind in sealed else set()
        assert set(opens(composed, OWN_KEYS[kind])) == wanted
    at_node = {part.name for part in parts if set(part.readers) - set(sealed)}
    assert set(opens(composed, CAMDEN.sealing)) == at_node
    assert opens(composed, SealingPrivateKey.generate()) == {}


@settings(max_examples=30, deadline=None)
@given(parts)
def test_what_is_opened_is_what_was_written(parts: list[FormPart]) -> None:
    composed = compose(parts)
    secrets = opens(composed, CAMDEN.sealing)
    rows = {row.section: row.ciphertext for row in composed.sections}
    for part, entry in zip(parts, composed.manifest.sections, strict=True):
        bound_to = SectionContext(MESSAGE, HACKNEY, CAMDEN.origin, part.name)
        plaintext = open_section(rows[part.name], secrets[part.name], bound_to, entry.commitment)
        assert msgspec.msgpack.decode(plaintext.reveal()) == part.content
        assert entry.readers == part.readers


def test_there_is_one_parcel_for_each_key_and_not_for_each_reader() -> None:
    composed = compose([FormPart(SectionName(f"part-{n}"), KINDS, {"a": n}) for n in range(5)], ("police",))
    assert [entry.key_id for entry in composed.manifest.parcels] == [
        CAMDEN.sealing.public.key_id,
        OWN_KEYS["police"].public.key_id,
    ]


def test_the_manifest_says_who_to_whom_and_for_how_long() -> None:
    composed = compose([FormPart(SectionName("housing"), ("housing",), {"text": CONTENT})])
    manifest = decode_wire(manifest_decoder, composed.body)
    assert manifest == composed.manifest
    assert (manifest.sender, manifest.recipient) == (HACKNEY, CAMDEN.origin)
    assert (manifest.from_area, manifest.to_area, manifest.card_serial) == ("E09000012", "E09000007", CARD.serial)
    assert (manifest.created_at, manifest.expires_at) == (NOW, NOW + timedelta(days=13))


def test_no_part_of_a_composed_message_holds_or_shows_its_content() -> None:
    composed = compose([FormPart(SectionName("housing"), ("housing",), {"text": CONTENT})])
    kept = composed.body + composed.keys.wrapped + composed.keys.secrets
    assert CONTENT.encode() not in kept + b"".join(row.ciphertext for row in composed.sections)
    assert CONTENT not in repr(composed)
    assert CONTENT not in repr(FormPart(SectionName("housing"), ("housing",), {"text": CONTENT}))


def test_the_same_form_twice_has_nothing_in_common() -> None:
    part = FormPart(SectionName("housing"), ("housing",), {"text": CONTENT})
    first, second = compose([part]), compose([part])
    assert first.sections[0].ciphertext != second.sections[0].ciphertext
    assert first.manifest.sections[0].commitment != second.manifest.sections[0].commitment
    assert first.keys != second.keys


# The key to seal to.


def key(start: int, end: int) -> CardSealingKey:
    """A sealing key that is in force from one hour to another, from now."""
    return CardSealingKey(
        key=SealingPrivateKey.generate().public.raw,
        not_before=NOW + timedelta(hours=start),
        not_after=NOW + timedelta(hours=end),
        opens_until=NOW + timedelta(hours=end + 9),
    )


@pytest.mark.parametrize(
    ("epochs", "chosen"),
    [
        ([(-1, 1)], 0),
        ([(0, 1)], 0),
        ([(-2, 1), (-1, 2)], 1),
        ([(-1, 2), (-2, 1)], 0),
        ([(-2, 9), (-1, 1)], 1),
        ([(-1, 1), (1, 9)], 0),
        ([(-9, 0), (-1, 1)], 1),
    ],
)
def test_of_the_keys_in_force_the_youngest_is_used(epochs: list[tuple[int, int]], chosen: int) -> None:
    keys = tuple(key(*epoch) for epoch in epochs)
    card = msgspec.structs.replace(CARD, sealing_keys=keys)
    assert current_sealing_key(card, NOW).raw == keys[chosen].key


@pytest.mark.parametrize("epochs", [[(1, 2)], [(-2, -1)], [(-1, 0)], [(-2, -1), (1, 2)]])
def test_a_key_that_is_not_in_force_is_never_used(epochs: list[tuple[int, int]]) -> None:
    card = msgspec.structs.replace(CARD, sealing_keys=tuple(key(*epoch) for epoch in epochs))
    with pytest.raises(NoCurrentKey, match=r"exchange\.camden\.example"):
        current_sealing_key(card, NOW)


def test_a_key_that_is_in_force_by_a_clock_five_minutes_ahead_is_used() -> None:
    soon = msgspec.structs.replace(key(0, 1), not_before=NOW + timedelta(minutes=5))
    later = msgspec.structs.replace(key(0, 1), not_before=NOW + timedelta(minutes=5, microseconds=1))
    assert current_sealing_key(msgspec.structs.replace(CARD, sealing_keys=(soon, later)), NOW).raw == soon.key


def test_a_card_that_has_expired_gives_no_key() -> None:
    card = msgspec.structs.replace(CARD, sealing_keys=(key(-1, 1),), expires_at=NOW)
    with pytest.raises(NoCurrentKey):
        current_sealing_key(card, NOW)
    assert current_sealing_key(card, NOW - timedelta(seconds=1))


# Secrets at rest.


def test_secrets_come_back_from_the_store_under_their_message_alone() -> None:
    secrets = {SectionName("housing"): Secret.random(), SectionName("police"): Secret.random()}
    kept = keep_secrets(STORE_KEY, HACKNEY, MESSAGE, secrets)
    found = recall_secrets(STORE_KEY, HACKNEY, MESSAGE, kept)
    assert {name: secret.reveal() for name, secret in found.items()} == {
        name: secret.reveal() for name, secret in secrets.items()
    }
    others: list[tuple[Any, str, MessageId]] = [
        (StoreKey.random(), HACKNEY, MESSAGE),
        (STORE_KEY, CAMDEN.origin, MESSAGE),
        (STORE_KEY, HACKNEY, new_message_id(0)),
    ]
    for store_key, sender, message in others:
        with pytest.raises(RestError):
            recall_secrets(store_key, sender, message, kept)


def test_secrets_under_the_key_of_another_message_are_refused() -> None:
    first = keep_secrets(STORE_KEY, HACKNEY, MESSAGE, {SectionName("housing"): Secret.random()})
    second = keep_secrets(STORE_KEY, HACKNEY, MESSAGE, {SectionName("housing"): Secret.random()})
    with pytest.raises(RestError):
        recall_secrets(STORE_KEY, HACKNEY, MESSAGE, type(first)(first.wrapped, second.secrets))
