"""Invitations: one admin gives the other a fingerprint and a secret to be used once; both ends are then verified.

* Who accepts checks the card that the URL serves against the fingerprint: a man in the middle has another one.
* Who invited checks the secret, which only the identity in that card could read.
* An invitation is spent on one identity. That identity is answered again until the invitation expires, since an
  answer may be lost; it changes nothing then, and nobody is left half registered.
* It never replaces the identity of a registered peer, and lifts no suspension, block, quarantine or revocation.
* Its secret, what the admin allowed, and on whom it was spent are one wrapped value: whoever writes to the database
  without the keys can make none of them up.
"""

import hmac
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from exchange.crypto.envelope import envelope_key_id, open_envelope, open_reply, seal_envelope, seal_reply
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import Origin, context
from exchange.crypto.rest import open_at_rest, seal_at_rest
from exchange.crypto.secret import Secret
from exchange.crypto.signing import fingerprint
from exchange.node.cards import own_card, verify_card
from exchange.node.compose import current_sealing_key
from exchange.node.config import is_node_url
from exchange.node.errors import FingerprintMismatch, NodeError, NotNow, PeerUntrusted, RequestInvalid, Unacceptable
from exchange.node.peer_client import PeerClient
from exchange.node.peering import Confirmation, check_shown
from exchange.node.registering import Allowance, fetch_shown, known_peer, refuse_revoked, register
from exchange.node.services import Services, milliseconds, moment
from exchange.node.trust import Trust
from exchange.schema.card_file import VerifiedCard
from exchange.schema.errors import SchemaError
from exchange.schema.registration import (
    FORMAT,
    REGISTRATION_TYPE,
    Invitation,
    Registration,
    RegistrationReply,
    registration_decoder,
    registration_reply_decoder,
)
from exchange.schema.wire import VERSION, ProvenStatement, decode_wire, encode_wire
from exchange.store.peers import PeerRow
from exchange.store.transaction import Transaction
from exchange.store.trust import (
    InvitationRow,
    add_invitation,
    all_invitations,
    invitation,
    rewrap_invitation,
    withdraw_invitation,
)

_HOW: Final = "invitation"
#: The states in which an invitation may find a peer; any other is for an admin to end by name.
_OPEN: Final = frozenset({Trust.UNVERIFIED, Trust.CONFIRMING, Trust.VERIFIED})


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrapped of an invitation; `spent_on` is the fingerprint of the identity that used it."""

    secret: bytes
    ca_file: str | None = None
    networks: tuple[str, ...] = ()
    spent_on: str | None = None
    spent_on_origin: str | None = None


@dataclass(frozen=True, slots=True)
class Outstanding:
    """An invitation that has not expired, without its secret."""

    id: str
    by: str
    made_at: datetime
    expires_at: datetime
    used_by: str | None


@dataclass(frozen=True, slots=True)
class Honoured:
    """A registration that was taken: the sealed answer, and the peer where it is new or has changed."""

    reply: bytes
    changed: PeerRow | None


class Invitations:
    """Gives, accepts and honours invitations."""

    def __init__(self, services: Services, client: PeerClient) -> None:
        self._services = services
        self._client = client

    async def invite(self, by: str, lasts: timedelta, allowance: Allowance) -> Invitation:
        """Make an invitation, by an admin of that name; the allowance is for whoever accepts it.

        Raises:
            RequestInvalid: this node's identity is revoked.
        """
        services = self._services
        refuse_revoked(services)
        origin, now = services.configuration.origin, services.now()
        given = Invitation(
            format=FORMAT,
            origin=origin,
            url=services.configuration.registration_url,
            fingerprint=fingerprint(origin, services.keyring.verifiers),
            id=os.urandom(16).hex(),
            secret=os.urandom(32),
            expires_at=now + lasts,
        )
        kept = _Kept(secret=given.secret, ca_file=allowance.ca_file, networks=allowance.networks)
        wrapped = self._wrap(given.id, kept)
        row = InvitationRow(given.id, wrapped, by, milliseconds(now), milliseconds(given.expires_at))
        await services.store.write(lambda tx: add_invitation(tx, row))
        services.log.info("invitation made")
        return given

    async def standing(self) -> list[Outstanding]:
        """The invitations that have not expired, oldest first."""
        now_ms = self._services.now_ms()
        rows = await self._services.store.read(lambda tx: all_invitations(tx, now_ms))
        return [
            Outstanding(
                row.id,
                row.by,
                moment(row.created_at_ms),
                moment(row.expires_at_ms),
                self._unwrap(row).spent_on_origin,
            )
            for row in rows
        ]

    async def withdraw(self, invitation_id: str) -> None:
        """Withdraw an invitation; who has used it stays registered.

        Raises:
            NotFound: there is none of that id.
        """
        await self._services.store.write(lambda tx: withdraw_invitation(tx, invitation_id))
        self._services.log.info("invitation withdrawn")

    async def accept(self, given: Invitation, allowance: Allowance, by: str) -> tuple[PeerRow, bool]:
        """Accept an invitation of another borough; the peer, and whether this node is verified there by now.

        The same again does no harm: with `two_people`, the second person accepts the same invitation.

        Raises:
            RequestInvalid: it has expired, or is this node's own.
            FingerprintMismatch: the URL serves another identity than the invitation names, or another is registered.
            PeerUntrusted: the peer is stopped here, or a second person must accept.
            Unacceptable: the other node does not honour it.
            NotNow: the other node cannot be reached, or nobody else's answer came; accept again.
        """
        services = self._services
        refuse_revoked(services)
        if given.expires_at <= services.now():
            raise RequestInvalid("the invitation has expired; ask for another")
        if given.origin == services.configuration.origin:
            raise RequestInvalid("that is this node's own invitation; the other borough accepts it")
        if not is_node_url(given.url):
            raise RequestInvalid("the invitation names a URL that is not https://HOST")
        await services.store.read(lambda tx: _check_open(tx, given.origin, given.fingerprint))
        shown = await fetch_shown(self._client, given.url, allowance)
        if shown.card.origin != given.origin or shown.fingerprint != given.fingerprint:
            raise FingerprintMismatch(
                f"{given.url} shows another identity than the invitation names; nothing was sent or kept",
                hint="Somebody may stand between you. Telephone the other admin; if its keys were changed, ask for "
                "another invitation.",
            )
        await services.store.read(lambda tx: check_shown(tx, services, shown))
        card, reply_secret = await own_card(services), Secret.random()
        registration = Registration(
            version=VERSION,
            invitation=given.id,
            secret=given.secret,
            card=ProvenStatement(statement=card.statement, proof=card.proof),
            reply_secret=reply_secret.reveal(),
        )
        key = current_sealing_key(shown.card, services.now())
        envelope = seal_envelope(encode_wire(registration), Origin(given.origin), key)
        answer = await self._client.post(allowance.place(given.url), "/v1/registrations", REGISTRATION_TYPE, envelope)
        if answer.code == "unacceptable":
            raise Unacceptable(
                f"{given.origin} does not honour the invitation; nothing was kept",
                hint="It was used, withdrawn, or has expired by that node's clock, or you are registered there already "
                "and otherwise. If nobody of yours used it, somebody else may have: telephone the other admin at once.",
            )
        if answer.status != 200:
            raise NotNow(f"{given.url} answered {answer.status}; accept the invitation again later")
        try:
            reply = decode_wire(registration_reply_decoder, open_reply(reply_secret, answer.body))
        except (CryptoError, SchemaError):
            reply = None
        if reply is None or reply.origin != given.origin:
            raise NotNow(f"the answer of {given.url} does not hold; accept the invitation again")

        async def operation(tx: Transaction) -> PeerRow:
            await _check_open(tx, given.origin, given.fingerprint)
            return await register(tx, services, shown, allowance, Confirmation(given.fingerprint, _HOW, by))

        row = await services.store.write(operation, long=True)
        services.log.info("invitation accepted", peer=row.origin, state=row.state)
        return row, reply.verified

    async def honour(self, data: bytes) -> Honoured:
        """Take a registration that answers an invitation of ours.

        Raises:
            Unacceptable: it does not open, or the invitation is not one that this identity can use.
        """
        services = self._services
        origin = services.configuration.origin
        try:
            refuse_revoked(services)
            key = services.keyring.sealing.get(envelope_key_id(data))
            if key is None:
                raise Unacceptable("the registration is for a sealing key that is not here")
            registration = decode_wire(registration_decoder, open_envelope(data, origin, key))
            # The secret comes before the card: to check a card costs more than strangers may spend here.
            await services.store.read(lambda tx: self._kept(tx, registration))
            item = registration.card
            shown = verify_card(item.statement, item.proof, services.checkpoints)
            honoured = await services.store.write(lambda tx: self._spend(tx, registration, shown), long=True)
        except (CryptoError, SchemaError, NodeError) as error:
            raise Unacceptable(f"{error.code}: {error}") from None
        row, is_new = honoured
        if is_new:
            services.log.info("invitation used", peer=row.origin, state=row.state)
        reply = RegistrationReply(version=VERSION, origin=origin, verified=row.state == Trust.VERIFIED)
        return Honoured(
            seal_reply(Secret(registration.reply_secret), encode_wire(reply)),
            row if is_new else None,
        )

    async def _kept(self, tx: Transaction, registration: Registration) -> tuple[InvitationRow, _Kept]:
        """The invitation that a registration names and whose secret it knows."""
        row = await invitation(tx, registration.invitation, self._services.now_ms())
        if row is None:
            raise Unacceptable("there is no such invitation, or it has expired")
        kept = self._unwrap(row)
        if not hmac.compare_digest(kept.secret, registration.secret):
            raise Unacceptable("the secret of the invitation is wrong")
        return row, kept

    async def _spend(self, tx: Transaction, registration: Registration, shown: VerifiedCard) -> tuple[PeerRow, bool]:
        """The peer that a registration makes or finds, and whether the invitation was spent only now."""
        services = self._services
        row, kept = await self._kept(tx, registration)
        await check_shown(tx, services, shown)
        found = await _check_open(tx, shown.card.origin, shown.fingerprint)
        if kept.spent_on is not None:
            # Nothing is confirmed by this: what the admin has decided about the peer since then stands.
            if kept.spent_on != shown.fingerprint or found is None or found.state == Trust.UNVERIFIED:
                raise Unacceptable("the invitation was used")
            return found, False
        used = msgspec.structs.replace(kept, spent_on=shown.fingerprint, spent_on_origin=shown.card.origin)
        if not await rewrap_invitation(tx, row, self._wrap(row.id, used)):
            raise Unacceptable("the invitation was used")
        confirmation = Confirmation(shown.fingerprint, _HOW, row.by)
        return await register(tx, services, shown, Allowance(kept.ca_file, kept.networks), confirmation), True

    def _wrap(self, invitation_id: str, kept: _Kept) -> bytes:
        return seal_at_rest(self._services.keyring.store_key, _name(invitation_id), msgspec.msgpack.encode(kept))

    def _unwrap(self, row: InvitationRow) -> _Kept:
        data = open_at_rest(self._services.keyring.store_key, _name(row.id), row.wrapped_secret)
        return msgspec.msgpack.decode(data, type=_Kept)


async def _check_open(tx: Transaction, origin: str, identity: str) -> PeerRow | None:
    """The registered peer of an origin; refuse one that no invitation may touch."""
    row = await known_peer(tx, origin)
    if row is None:
        return None
    if row.fingerprint != identity or row.candidate is not None:
        raise FingerprintMismatch(
            f"another identity of {origin} is registered; an invitation does not replace it",
            hint="Telephone its admin. If its keys were made anew, register it by its card and the number.",
        )
    if row.state not in _OPEN:
        raise PeerUntrusted(
            f"{origin} is {row.state} here; an invitation does not lift that",
            hint="Telephone its admin; once you know why: exchange peer verify " + origin,
        )
    return row


def _name(invitation_id: str) -> bytes:
    return context("invitation", invitation_id.encode())
