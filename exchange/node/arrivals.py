"""Messages that arrive: check the manifest, open what is this node's to open, store, and queue for the agencies.

* The receipt is signed in the transaction that stores the message, and exists only where the message is stored.
* The same message again gets the same receipt; the same id with another content is a conflict.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from exchange.crypto.errors import CryptoError
from exchange.crypto.names import LeafHash, MessageId, Origin, SealingKeyId, SectionName
from exchange.crypto.parcel import open_parcel
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, open_section
from exchange.handover.routing import Facts
from exchange.node.agency_keys import is_for_others, sealed_kinds
from exchange.node.cards import peer_card
from exchange.node.compose import keep_secrets
from exchange.node.errors import ItemRefused
from exchange.node.hearing import still_heard
from exchange.node.receipts import sign_receipt
from exchange.node.routing import route
from exchange.node.routing_facts import REFERRAL, facts_of
from exchange.node.services import Services, milliseconds
from exchange.schema.errors import ContentInvalid
from exchange.schema.section_content import read_content
from exchange.schema.wire import (
    Manifest,
    ProvenStatement,
    Rung,
)
from exchange.store.errors import Conflict
from exchange.store.log import ProvenEntry, proven_at
from exchange.store.messages import (
    INBOUND,
    KeysRow,
    MessageRow,
    SectionRow,
    add_event,
    add_message,
    add_receipt,
    find_message,
)
from exchange.store.peers import PeerRow
from exchange.store.transaction import LogEntry, Transaction

_AHEAD: Final = timedelta(minutes=5)
_LONGEST: Final = timedelta(days=90)
#: What takes so long to check that others must have their turn before the next.
_LONG_BYTES: Final = 64 * 1024


class Arrivals:
    """Takes messages of peers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def take(
        self,
        row: PeerRow,
        manifest: Manifest,
        leaf: LeafHash,
        item: ProvenStatement,
        ciphertexts: Mapping[bytes, bytes],
        lanes: set[str],
    ) -> LogEntry | ProvenStatement:
        """Store a message, queue it for the agencies and add their lanes to `lanes`; its receipt, new or given before.

        Raises:
            ItemRefused: it is not for this node, or cannot be opened here.
            Conflict: the same id came before with another content.
            Unacceptable: the peer is not verified any more.
        """
        self._check_manifest(row, manifest, ciphertexts)
        try:
            secrets, facts = await self._open(manifest, ciphertexts)
        except ItemRefused:
            # What opened it may be destroyed or lost; what was signed for is signed for.
            given = await self._given_before(manifest, leaf)
            if given is None:
                raise
            return given
        services = self._services
        keys = keep_secrets(services.keyring.store_key, manifest.sender, manifest.message_id, secrets)
        sections = [SectionRow(entry.name, ciphertexts[entry.sha256]) for entry in manifest.sections]

        async def operation(tx: Transaction) -> LogEntry | int:
            await still_heard(tx, row)
            present = await find_message(tx, manifest.sender, manifest.message_id)
            if present is not None:
                if present.leaf_hash != leaf or present.received_position is None:
                    raise Conflict(f"message {manifest.message_id} was received before with another content")
                return present.received_position
            return await self._store(tx, row, manifest, leaf, item, keys, sections, facts, lanes)

        size_bytes = len(item.statement) + sum(len(section.ciphertext) for section in sections)
        stored: LogEntry | int | None = None
        services.admission.count(row.origin, size_bytes, services.now_ms())
        try:
            stored = await services.store.write(operation)
        finally:
            if not isinstance(stored, LogEntry):
                services.admission.give_back(row.origin, size_bytes)
        if isinstance(stored, LogEntry):
            return stored
        # Only now: where the same message came twice in one batch, its receipt is in the log once that is committed.
        proven = await services.store.read(lambda tx: proven_at(tx, stored), brief=True)
        return ProvenStatement(statement=proven.statement, proof=proven.proof)

    async def _given_before(self, manifest: Manifest, leaf: LeafHash) -> ProvenStatement | None:
        """The receipt that was given for the very same message before, if one was."""

        async def find(tx: Transaction) -> ProvenEntry | None:
            present = await find_message(tx, manifest.sender, manifest.message_id)
            if present is None or present.leaf_hash != leaf or present.received_position is None:
                return None
            return await proven_at(tx, present.received_position)

        proven = await self._services.store.read(find, brief=True)
        return None if proven is None else ProvenStatement(statement=proven.statement, proof=proven.proof)

    def _check_manifest(self, row: PeerRow, manifest: Manifest, ciphertexts: Mapping[bytes, bytes]) -> None:
        services = self._services
        now = services.now()
        if manifest.sender != row.origin or manifest.from_area != peer_card(row).area:
            raise ItemRefused("sender-wrong", "the manifest names another sender than the one who signed it")
        if (
            manifest.recipient != services.configuration.origin
            or manifest.to_area != services.configuration.tables.node.area
        ):
            raise ItemRefused("recipient-wrong", "the manifest is for another borough")
        if manifest.created_at > now + _AHEAD:
            raise ItemRefused("from-the-future", "created_at is more than five minutes ahead of this node's clock")
        if manifest.expires_at <= now or manifest.expires_at > manifest.created_at + _LONGEST:
            raise ItemRefused("expired", "expires_at has passed, or is more than 90 days after created_at")
        names = [entry.name for entry in manifest.sections]
        if len(set(names)) != len(names):
            raise ItemRefused("sections-doubled", "a section stands twice in the manifest")
        for entry in manifest.sections:
            if not set(entry.readers) <= services.catalogue.allowed(entry.name):
                raise ItemRefused("readers-not-allowed", f"section {entry.name} names readers that it may not have")
            if entry.sha256 not in ciphertexts:
                raise ItemRefused("section-missing", f"the ciphertext of section {entry.name} is missing")

    async def _open(
        self, manifest: Manifest, ciphertexts: Mapping[bytes, bytes]
    ) -> tuple[dict[SectionName, Secret], Facts]:
        """The secrets of the sections that this node opens for its agencies, each checked to open; and what rules ask.

        Where each reader of a section has a parcel to a key of its own, the node has no secret of it.
        """
        services = self._services
        message_id, sender = MessageId(manifest.message_id), Origin(manifest.sender)
        sealed: frozenset[str] = frozenset()
        if is_for_others(services, manifest):
            sealed = await services.store.read(lambda tx: sealed_kinds(services, tx, manifest))
        facts = facts_of(manifest, sealed, None)
        recipient = services.configuration.origin
        secrets: dict[SectionName, Secret] = {}
        try:
            for parcel in manifest.parcels:
                key = services.keyring.sealing.get(SealingKeyId(parcel.key_id))
                if key is not None:
                    secrets |= open_parcel(parcel.parcel, key, sender, recipient, message_id)
            for entry in manifest.sections:
                name = SectionName(entry.name)
                if name not in secrets and sealed.issuperset(entry.readers):
                    continue  # it is for agencies alone, and for them to open
                if name not in secrets:
                    raise ItemRefused("parcel-missing", f"no parcel of this node opens section {name}")
                bound_to = SectionContext(message_id, sender, recipient, name)
                plaintext = open_section(ciphertexts[entry.sha256], secrets[name], bound_to, entry.commitment)
                content = read_content(plaintext)
                if name == REFERRAL:
                    facts = facts_of(manifest, sealed, content)
                if len(plaintext.reveal()) > _LONG_BYTES:
                    await asyncio.sleep(0)
        except (CryptoError, ContentInvalid) as error:
            raise ItemRefused(error.code, str(error)) from None
        return secrets, facts

    async def _store(
        self,
        tx: Transaction,
        row: PeerRow,
        manifest: Manifest,
        leaf: LeafHash,
        item: ProvenStatement,
        keys: KeysRow,
        sections: list[SectionRow],
        facts: Facts,
        lanes: set[str],
    ) -> LogEntry:
        services = self._services
        now_ms = services.now_ms()
        received = await sign_receipt(services, tx, manifest, leaf, Rung.RECEIVED, ())
        message = MessageRow(
            number=0,
            origin=manifest.sender,
            message_id=manifest.message_id,
            direction=INBOUND,
            peer=row.origin,
            leaf_hash=leaf,
            statement=item.statement,
            proof=item.proof,
            position=None,
            received_position=received.position,
            urgent=int(manifest.urgent),
            created_at_ms=milliseconds(manifest.created_at),
            expires_at_ms=milliseconds(manifest.expires_at),
            stored_at_ms=now_ms,
        )
        number = await add_message(tx, message, keys, sections)
        await add_receipt(
            tx, number, "received", received.leaf_hash, received.statement, now_ms, position=received.position
        )
        await add_event(tx, number, "received", now_ms, detail=row.origin)
        lanes |= await route(services, tx, message._replace(number=number), manifest, facts)
        return received
