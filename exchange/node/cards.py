"""Cards: the node's own, and those of its peers, as files and from the wire."""

import functools
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from exchange.crypto.checkpoint import CheckpointCache
from exchange.crypto.sealing import SealingPublicKey
from exchange.crypto.statement import parse_statement
from exchange.node.compose import current_key
from exchange.node.errors import NoCurrentKey, RequestInvalid
from exchange.node.services import Services, milliseconds
from exchange.schema.acknowledgement import signer_of
from exchange.schema.card_file import MOST_ROTATIONS, CardFile, VerifiedCard, check_card, read_card_file
from exchange.schema.errors import CardInvalid
from exchange.schema.wire import (
    CARD,
    VERSION,
    Card,
    CardAgency,
    ProvenStatement,
    card_decoder,
    decode_wire,
    encode_wire,
)
from exchange.store.agencies import all_agencies
from exchange.store.agency_keys import AgencyKeyRow, all_agency_keys, keys_in_force
from exchange.store.errors import NotFound
from exchange.store.keys import keep_card, last_card, proven_card
from exchange.store.log import ProvenEntry
from exchange.store.outbox import release_reason
from exchange.store.peers import PeerRow
from exchange.store.transaction import LogEntry, Transaction
from exchange.store.trust import proven_rotations

_CARD_LIFETIME: Final = timedelta(days=90)
#: Why a delivery is held until a card with a key to seal to arrives.
NO_CURRENT_KEY: Final = "no current key: the peer's card is out of date"


def parse_card_file(data: bytes) -> VerifiedCard:
    """Read and check a card file.

    Raises:
        RequestInvalid: it is not a card, or its proof does not hold.
    """
    try:
        return read_card_file(data)
    except CardInvalid as error:
        raise RequestInvalid(str(error)) from None


def verify_card(statement: bytes, proof: str, cache: CheckpointCache | None = None) -> VerifiedCard:
    """Check a card against the keys that it names.

    Raises:
        RequestInvalid: it is not a card, or its proof does not hold.
    """
    try:
        return check_card(statement, proof, cache)
    except CardInvalid as error:
        raise RequestInvalid(str(error)) from None


def peer_card(row: PeerRow) -> Card:
    """The card in force of a registered peer; it was verified before it was stored."""
    return stored_card(row.card)


@functools.lru_cache(maxsize=256)
def stored_card(statement: bytes) -> Card:
    """The card in a statement that was verified before it was stored."""
    return decode_wire(card_decoder, parse_statement(statement).body)


def has_expired(card: Card, now: datetime) -> bool:
    """Whether a card says nothing any more."""
    return card.expires_at <= now


async def release_if_current(tx: Transaction, services: Services, row: PeerRow) -> bool:
    """Let what waited for a sealing key of a peer go on, where its card in force has one; whether anything did."""
    try:
        current_key(peer_card(row), services.now())
    except NoCurrentKey:
        return False
    return await release_reason(tx, f"peer:{row.origin}", NO_CURRENT_KEY) > 0


async def sign_card(tx: Transaction, services: Services) -> LogEntry:
    """Sign a card of the node as it now is, with the next serial."""
    node = services.configuration.tables.node
    now = services.now()
    agencies = await announced_agencies(tx)
    try:
        serial = (await last_card(tx))[0] + 1
    except NotFound:
        serial = 1
    card = Card(
        version=VERSION,
        origin=services.configuration.origin,
        area=node.area,
        name=node.name,
        url=node.url.rstrip("/"),
        serial=serial,
        issued_at=now,
        expires_at=now + _CARD_LIFETIME,
        signing_keys=tuple(key.text() for key in services.keyring.verifiers),
        sealing_keys=services.keyring.card_sealing_keys(milliseconds(now)),
        agencies=agencies,
        tls_spki_sha256=services.certificates.pins,
        tls_client_certificates=(services.certificates.client.certificate,),
    )
    entry = await tx.sign(CARD, encode_wire(card))
    await keep_card(tx, serial, entry)
    return entry


async def announced_agencies(tx: Transaction) -> tuple[CardAgency, ...]:
    """The kinds of agency for the card, with the key that one of each has proven; who is yet to prove one waits."""
    keys = await all_agency_keys(tx)
    own = keys_in_force(keys)
    waiting = {row.agency for row in keys if row.is_pending and row.holds}
    kinds = dict.fromkeys(row.kind for row in await all_agencies(tx) if row.id not in waiting)
    return tuple(_announced(kind, own.get(kind)) for kind in kinds)


def _announced(kind: str, key: AgencyKeyRow | None) -> CardAgency:
    return CardAgency(kind=kind) if key is None else CardAgency(kind=kind, key=key.key, signer=signer_of(key.vkeys))


async def own_card(services: Services) -> ProvenEntry:
    """The node's latest card."""
    return await services.store.read(proven_card)


async def own_card_file(services: Services) -> CardFile:
    """The node's latest card, with the rotations that led to it."""

    async def collect(tx: Transaction) -> CardFile:
        entry = await proven_card(tx)
        rotations = (await proven_rotations(tx, services.configuration.origin))[-MOST_ROTATIONS:]
        return CardFile(entry.statement, entry.proof, as_items(rotations))

    return await services.store.read(collect)


def as_items(entries: Iterable[ProvenEntry]) -> tuple[ProvenStatement, ...]:
    """Proven entries as they cross the wire."""
    return tuple(ProvenStatement(statement=entry.statement, proof=entry.proof) for entry in entries)


def describe_card(verified: VerifiedCard) -> dict[str, object]:
    """A card for a person or a script."""
    card = verified.card
    return {
        "origin": card.origin,
        "area": card.area,
        "name": card.name,
        "url": card.url,
        "serial": card.serial,
        "fingerprint": verified.fingerprint,
        "signing_keys": list(card.signing_keys),
        "sealing_keys": [
            {"not_before": key.not_before, "not_after": key.not_after, "opens_until": key.opens_until}
            for key in card.sealing_keys
        ],
        "agencies": [agency.kind for agency in card.agencies],
        "agency_keys": {
            agency.kind: SealingPublicKey(agency.key).key_id.hex() for agency in card.agencies if agency.key is not None
        },
        "agency_signers": {agency.kind: agency.signer.hex() for agency in card.agencies if agency.signer is not None},
        "tls_spki_sha256": [pin.hex() for pin in card.tls_spki_sha256],
        "issued_at": card.issued_at,
        "expires_at": card.expires_at,
    }
