"""Sections to agencies by webhook: one row of the outbox is one message for one agency.

* A section that the agency has accepted is not sent again; one whose 2xx was not recorded is, under the same id.
* A section that cannot be opened is held by itself; the others go on.
* What no later attempt can change is held, not tried again: a section too large for the agency (413) or that it cannot
  open (422), and all that waits where the agency wants no more (410, as Standard Webhooks has it).
* What is sealed to a key of the agency's own goes on as it came, with what proves its sender; the node opens none.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from exchange import crash_points
from exchange.crypto.errors import CryptoError, RestError, SectionError
from exchange.crypto.names import LeafHash, MessageId, Origin, SectionName, context
from exchange.crypto.rest import open_at_rest
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext, open_section
from exchange.crypto.statement import parse_statement
from exchange.handover.rungs import has_reached
from exchange.node.agency_keys import is_for_others, own_parcel
from exchange.node.cards import as_items
from exchange.node.compose import recall_secrets
from exchange.node.delivery import Outcome
from exchange.node.egress import guarded_connector, parse_networks, why_unreachable
from exchange.node.inbound import Inbound
from exchange.node.peer_client import PeerClient
from exchange.node.services import Services, moment
from exchange.node.webhook import event_body, signed_headers
from exchange.schema.agency_keys import MOST_BYTES, ChallengeFile
from exchange.schema.card_file import MOST_ROTATIONS, CardFile
from exchange.schema.events import CHALLENGE, SECTION_DELIVERED, TEST, section_event_id
from exchange.schema.wire import Manifest, Rung, SectionEntry, decode_wire, manifest_decoder
from exchange.store.agencies import AgencyRow, agency_of_kind
from exchange.store.agency_keys import AgencyKeyRow, all_agency_keys, keys_in_force, kinds_by_key, waiting_kinds
from exchange.store.errors import NotFound
from exchange.store.messages import (
    KeysRow,
    MessageRow,
    SectionRow,
    keys_of,
    message_by_number,
    placements_of,
    sections_of,
)
from exchange.store.outbox import Delivery, done_if_claimed, is_still_claimed
from exchange.store.peers import peer
from exchange.store.transaction import Transaction
from exchange.store.trust import proven_rotations

_AT_ONCE: Final = 4
_MOST_RESPONSE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class _Parcel:
    """What one agency is still to have of one message."""

    message: MessageRow
    manifest: Manifest
    secrets: dict[str, Secret]
    sections: list[tuple[SectionEntry, SectionRow]]
    #: What goes with each section where the agency opens it itself.
    sealed: dict[str, bytes] | None = None


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an event was not accepted, by which HTTP status if any, and what Retry-After asked for."""

    reason: str
    status: int = 0
    asked_s: float = 0.0


class AgencyDeliveries:
    """Delivers sections to agencies."""

    def __init__(self, services: Services, inbound: Inbound, client: PeerClient) -> None:
        self._services = services
        self._inbound = inbound
        self._client = client
        self._sessions: dict[tuple[str, str], aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close the connections to agencies."""
        for session in self._sessions.values():
            await session.close()

    async def perform(self, kind: str, rows: Sequence[Delivery]) -> Outcome:
        """Deliver rows of an agency's lane, one after the other, until one fails."""
        services = self._services
        agency, keys = await services.store.read(lambda tx: _agency_and_keys(tx, kind))
        if agency is None:
            return Outcome(held=[(delivery, f"no agency of kind {kind} is registered") for delivery in rows])
        if kind in waiting_kinds(keys):
            return Outcome(held=[(delivery, f"agency {kind} has not proven its key yet") for delivery in rows])
        own_key = kind in keys_in_force(keys)
        outcome = Outcome()
        for number, delivery in enumerate(rows):
            try:
                parcel = await self._collect(delivery, kind)
            except (NotFound, RestError) as error:
                outcome.held.append((delivery, str(error)))
                continue
            if parcel.sealed is not None and not own_key:
                outcome.held.append((delivery, f"it is sealed to a key that agency {kind} had before"))
                continue
            await self._deliver(agency, delivery, parcel, outcome)
            if outcome.error is not None:
                outcome.again += rows[number + 1 :]
                break
            if outcome.held and outcome.held[-1][1] == _gone(kind):
                outcome.held += [(waiting, _gone(kind)) for waiting in rows[number + 1 :]]
                break
        return outcome

    async def _collect(self, delivery: Delivery, kind: str) -> _Parcel:
        services, number = self._services, delivery.message or 0

        async def collect(
            tx: Transaction,
        ) -> tuple[MessageRow, Manifest, KeysRow, list[tuple[SectionEntry, SectionRow]], dict[str, bytes] | None]:
            message = await message_by_number(tx, number)
            manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
            accepted = {
                row.section
                for row in await placements_of(tx, number)
                if row.agency == kind and has_reached(row.rung, "delivered")
            }
            rows = {row.section: row for row in await sections_of(tx, number)}
            waiting = [
                (entry, rows[entry.name])
                for entry in manifest.sections
                if kind in entry.readers and entry.name not in accepted
            ]
            return (
                message,
                manifest,
                await keys_of(tx, number),
                waiting,
                await self._sealed(tx, message, manifest, kind),
            )

        message, manifest, keys, waiting, sealed = await services.store.read(collect)
        secrets = recall_secrets(services.keyring.store_key, manifest.sender, manifest.message_id, keys)
        return _Parcel(message, manifest, secrets, waiting, sealed)

    async def _sealed(
        self, tx: Transaction, message: MessageRow, manifest: Manifest, kind: str
    ) -> dict[str, bytes] | None:
        """What an agency needs to open by itself what is sealed to a key of its own; None where the node opens it."""
        if not is_for_others(self._services, manifest):
            return None
        parcel = own_parcel(manifest, kinds_by_key(await all_agency_keys(tx)), kind)
        if parcel is None:
            return None
        sender = await peer(tx, message.peer)
        rotations = (await proven_rotations(tx, message.peer))[-MOST_ROTATIONS:]
        card = CardFile(sender.card, sender.proof, as_items(rotations))
        return {
            "manifest": message.statement,
            "proof": (message.proof or "").encode(),
            "card": msgspec.json.encode(card),
            "parcel": parcel.parcel,
            "key_id": parcel.key_id,
        }

    async def _deliver(self, agency: AgencyRow, delivery: Delivery, parcel: _Parcel, outcome: Outcome) -> None:
        """Deliver the sections of one row, a few at a time; what was accepted is recorded even where one fails."""
        accepted: list[str] = []
        unreadable: list[str] = []
        lasting: str | None = None
        for start in range(0, len(parcel.sections), _AT_ONCE):
            events: list[tuple[str, bytes]] = []
            for entry, row in parcel.sections[start : start + _AT_ONCE]:
                try:
                    events.append((entry.name, self._event(parcel, agency.kind, entry, row)))
                except CryptoError:
                    unreadable.append(entry.name)
            leaf = parcel.message.leaf_hash
            failures = await asyncio.gather(
                *(self._post(agency, section_event_id(leaf, name, agency.kind), body) for name, body in events)
            )
            accepted += [name for (name, _), failure in zip(events, failures, strict=True) if failure is None]
            for failure in failures:
                if failure is None:
                    continue
                if failure.status == 410:
                    lasting = _gone(agency.kind)
                elif failure.status == 413:
                    lasting = lasting or f"agency {agency.kind} finds it too large"
                elif failure.status == 422:
                    lasting = lasting or f"agency {agency.kind} cannot open it"
                else:
                    outcome.error = failure.reason
                    outcome.asked_s = max(outcome.asked_s, failure.asked_s)
            if outcome.error is not None or lasting == _gone(agency.kind):
                break
        if lasting is None and unreadable:
            lasting = f"cannot be opened here: {', '.join(unreadable)}"
        if outcome.error is not None:
            outcome.again.append(delivery)
        elif lasting is not None:
            outcome.held.append((delivery, lasting))
        await self._record(agency, delivery, parcel, accepted, finished=outcome.error is None and lasting is None)
        if accepted:
            outcome.wake.add(f"peer:{parcel.message.peer}")

    async def _record(
        self, agency: AgencyRow, delivery: Delivery, parcel: _Parcel, accepted: list[str], *, finished: bool
    ) -> None:
        services, message = self._services, parcel.message
        pairs = [(name, agency.kind) for name in accepted]
        leaf = LeafHash(message.leaf_hash)

        async def operation(tx: Transaction) -> None:
            mine = await (done_if_claimed if finished else is_still_claimed)(tx, delivery)
            if not mine:
                services.counters.add("claims_lost")
            # Another replica has or had the row meanwhile, and may have delivered some of it: each section counts once.
            alone = mine and not services.store.shared
            fresh = pairs if alone else await self._not_delivered(tx, message.number, pairs)
            if fresh:
                await self._inbound.climb(
                    tx, message.peer, parcel.manifest, leaf, message.number, Rung.DELIVERED, fresh
                )

        await services.store.write(operation)
        crash_points.reached("webhook.recorded")
        services.counters.add("sections_delivered", len(accepted))
        services.changes.notify()

    async def _not_delivered(
        self, tx: Transaction, number: int, pairs: Sequence[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        delivered = {
            (row.section, row.agency) for row in await placements_of(tx, number) if has_reached(row.rung, "delivered")
        }
        return [pair for pair in pairs if pair not in delivered]

    def _event(self, parcel: _Parcel, kind: str, entry: SectionEntry, row: SectionRow) -> bytes:
        """The body of a section's webhook; where the node opens it, plaintext exists from here until it is sent.

        Raises:
            CryptoError: the section cannot be opened.
        """
        services, manifest = self._services, parcel.manifest
        name = SectionName(entry.name)
        content: dict[str, Any]
        if parcel.sealed is not None:
            content = {"sealed": {**parcel.sealed, "ciphertext": row.ciphertext}}
        else:
            content = {"content": _open(parcel, entry, row)}
        return event_body(
            section_event_id(parcel.message.leaf_hash, name, kind),
            SECTION_DELIVERED,
            services.configuration.origin,
            f"{manifest.message_id}/{name}",
            moment(parcel.message.stored_at_ms),
            {
                "message_id": manifest.message_id,
                "section": name,
                "from": manifest.from_area,
                "to": manifest.to_area,
                "urgent": manifest.urgent,
                **content,
            },
        )

    async def challenge(self, row: AgencyRow, event_id: str, challenge: ChallengeFile) -> tuple[int, bytes]:
        """Have an agency prove its key at its endpoint; return the HTTP status and what it answered.

        Raises:
            OSError, TimeoutError, aiohttp.ClientError: the agency cannot be reached.
        """
        origin, answered = self._services.configuration.origin, bytearray()
        body = event_body(event_id, CHALLENGE, origin, row.id, self._services.now(), {"challenge": challenge})
        status, _ = await self._request(row, event_id, body, answered)
        return status, bytes(answered)

    async def test(self, row: AgencyRow, event_id: str) -> int:
        """Send a synthetic event; return the HTTP status.

        Raises:
            OSError, TimeoutError, aiohttp.ClientError: the agency cannot be reached.
        """
        data = {"test": True, "agency": row.kind}
        origin = self._services.configuration.origin
        status, _ = await self._request(
            row, event_id, event_body(event_id, TEST, origin, row.id, self._services.now(), data)
        )
        return status

    async def _post(self, row: AgencyRow, event_id: str, body: bytes) -> _Failure | None:
        """POST one event; None where it was accepted, or why not."""
        crash_points.reached("webhook.before-call")
        try:
            status, asked_s = await self._request(row, event_id, body)
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            return _Failure(f"agency {row.kind} cannot be reached: {why_unreachable(error)}")
        if not 200 <= status < 300:
            return _Failure(f"agency {row.kind} answered {status}", status, asked_s)
        crash_points.reached("webhook.accepted")
        return None

    async def _request(
        self, row: AgencyRow, event_id: str, body: bytes, answered: bytearray | None = None
    ) -> tuple[int, float]:
        services = self._services
        secret = open_at_rest(services.keyring.store_key, context("agency-secret", row.id.encode()), row.wrapped_secret)
        headers = signed_headers(secret.decode(), event_id, services.now_ms() // 1000, body)
        timeout = aiohttp.ClientTimeout(total=services.configuration.tables.delivery.agency_timeout_s)
        session = self._session(row)
        async with session.post(row.url, data=body, headers=headers, allow_redirects=False, timeout=timeout) as answer:
            # What an agency answers is not ours to keep; reading a little of it lets the connection be used again.
            if answered is None:
                await answer.content.read(_MOST_RESPONSE_BYTES)
            else:
                async for piece in answer.content.iter_any():
                    answered += piece
                    if len(answered) > MOST_BYTES:
                        break
            return answer.status, _retry_after_s(answer.headers.get("retry-after"))

    def _session(self, row: AgencyRow) -> aiohttp.ClientSession:
        session = self._sessions.get((row.id, row.url))
        if session is None:
            # Without TLS whoever is on the way reads the section: only networks that the admin named will do.
            connector = guarded_connector(
                parse_networks(json.loads(row.networks)),
                elsewhere=urlsplit(row.url).scheme == "https",
                ssl=self._client.tls(row.ca_file),
                limit=8,
            )
            session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
            )
            self._sessions[row.id, row.url] = session
        return session


async def _agency_and_keys(tx: Transaction, kind: str) -> tuple[AgencyRow | None, list[AgencyKeyRow]]:
    return await agency_of_kind(tx, kind), await all_agency_keys(tx)


def _open(parcel: _Parcel, entry: SectionEntry, row: SectionRow) -> Any:
    """The content of a section that the node opens.

    Raises:
        CryptoError: it cannot be opened.
    """
    manifest, name = parcel.manifest, SectionName(entry.name)
    secret = parcel.secrets.get(name)
    if secret is None:
        raise SectionError("the node has no secret of this section")
    bound_to = SectionContext(MessageId(manifest.message_id), Origin(manifest.sender), Origin(manifest.recipient), name)
    return msgspec.msgpack.decode(open_section(row.ciphertext, secret, bound_to, entry.commitment).reveal())


def _gone(kind: str) -> str:
    return f"agency {kind} answered 410: it wants no more"


def _retry_after_s(value: str | None) -> float:
    return float(value) if value is not None and value.isascii() and value.isdigit() else 0.0
