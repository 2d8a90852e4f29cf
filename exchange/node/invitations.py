"""Invitations: one admin gives the other a fingerprint and a secret to be used once; both ends are then verified.

* Who accepts checks the card that the URL serves against the fingerprint: a man in the middle has another one.
* Who invited checks the secret, which only the sealing key in that card could read.
* An invitation works once, for a time, and never replaces the identity of a peer that is registered.
"""

import base64
import hmac
import os
from datetime import timedelta
from pathlib import Path
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
from exchange.node.errors import FingerprintMismatch, NodeError, NotNow, RequestInvalid, Unacceptable
from exchange.node.peer_client import PeerClient, Place
from exchange.node.peering import Confirmation, confirm, show_card
from exchange.node.services import Services, milliseconds
from exchange.schema.errors import SchemaError
from exchange.schema.registration import (
    REGISTRATION_TYPE,
    Invitation,
    Registration,
    RegistrationReply,
    registration_decoder,
    registration_reply_decoder,
)
from exchange.schema.wire import VERSION, ProvenStatement, decode_wire, encode_wire
from exchange.store.errors import NotFound
from exchange.store.peers import PeerRow, peer
from exchange.store.transaction import Transaction
from exchange.store.trust import InvitationRow, add_invitation, invitation, use_invitation

LINK: Final = "exchange-invitation:"


def invitation_link(given: Invitation) -> str:
    """An invitation as one word, for a message or a QR code."""
    return LINK + base64.urlsafe_b64encode(msgspec.json.encode(given)).decode().rstrip("=")


def parse_invitation(text: str) -> Invitation:
    """Read an invitation: its JSON, or the link.

    Raises:
        RequestInvalid: it is neither.
    """
    try:
        word = text.strip()
        data = word.encode()
        if word.startswith(LINK):
            body = word.removeprefix(LINK)
            data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(data, type=Invitation)
    except (msgspec.DecodeError, ValueError):
        raise RequestInvalid("that is not an invitation") from None


class Invitations:
    """Gives, accepts and honours invitations."""

    def __init__(self, services: Services, client: PeerClient) -> None:
        self._services = services
        self._client = client

    async def invite(self, by: str, lasts: timedelta) -> Invitation:
        """Make an invitation, by an admin of that name."""
        services = self._services
        origin = services.configuration.origin
        invitation_id, secret, now = os.urandom(16).hex(), os.urandom(32), services.now()
        given = Invitation(
            format="exchange-invitation/1",
            origin=origin,
            url=services.configuration.registration_url,
            fingerprint=fingerprint(origin, services.keyring.verifiers),
            id=invitation_id,
            secret=secret,
            expires_at=now + lasts,
        )
        wrapped = seal_at_rest(services.keyring.store_key, _name(invitation_id), secret)
        row = InvitationRow(invitation_id, wrapped, by, milliseconds(now), milliseconds(given.expires_at))
        await services.store.write(lambda tx: add_invitation(tx, row))
        services.log.info("invitation made")
        return given

    async def accept(self, given: Invitation, ca_file: str | None, by: str) -> PeerRow:
        """Accept an invitation of another borough: both nodes are registered and verified.

        Raises:
            RequestInvalid: it has expired.
            FingerprintMismatch: the URL serves another identity than the invitation names.
            Unacceptable: the other node does not honour it: it was used, or has expired there.
            NotNow: the other node cannot be reached.
        """
        services = self._services
        if given.expires_at <= services.now():
            raise RequestInvalid("the invitation has expired; ask for another")
        shown = await self._client.fetch_card(Place(given.url, ca_file))
        if shown.card.origin != given.origin or shown.fingerprint != given.fingerprint:
            raise FingerprintMismatch(f"{given.url} shows another identity than the invitation names; nothing was kept")
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
        answer = await self._client.post(Place(given.url, ca_file), "/v1/registrations", REGISTRATION_TYPE, envelope)
        if answer.status != 200:
            raise Unacceptable(f"{given.origin} does not honour the invitation: it was used, or has expired")
        try:
            reply = decode_wire(registration_reply_decoder, open_reply(reply_secret, answer.body))
        except (CryptoError, SchemaError):
            raise NotNow(f"the answer of {given.origin} does not hold") from None
        if reply.origin != given.origin:
            raise NotNow(f"the answer of {given.origin} does not hold")

        async def operation(tx: Transaction) -> PeerRow:
            await show_card(tx, services, shown, ca_file)
            return await confirm(tx, services, shown.card.origin, Confirmation(given.fingerprint, "invitation", by))

        return await services.store.write(operation)

    async def honour(self, data: bytes) -> tuple[bytes, PeerRow]:
        """Take a registration that answers an invitation of ours; return the sealed reply and the new peer.

        Raises:
            Unacceptable: it does not open, or the invitation is not one that can still be used.
        """
        services = self._services
        origin = services.configuration.origin
        try:
            key = services.keyring.sealing.get(envelope_key_id(data))
            if key is None:
                raise Unacceptable("the registration is for a sealing key that is not here")
            registration = decode_wire(registration_decoder, open_envelope(data, origin, key))
            shown = verify_card(registration.card.statement, registration.card.proof, services.checkpoints)
        except (CryptoError, SchemaError, RequestInvalid) as error:
            raise Unacceptable(f"{error.code}: {error}") from None

        async def operation(tx: Transaction) -> PeerRow:
            row = await invitation(tx, registration.invitation, services.now_ms())
            if row is None:
                raise Unacceptable("no such invitation can be used")
            secret = open_at_rest(services.keyring.store_key, _name(row.id), row.wrapped_secret)
            if not hmac.compare_digest(secret, registration.secret):
                raise Unacceptable("the invitation's secret is wrong")
            try:
                if (await peer(tx, shown.card.origin)).fingerprint != shown.fingerprint:
                    raise Unacceptable("an invitation does not replace a peer's identity")
            except NotFound:
                pass
            await use_invitation(tx, row.id)
            await show_card(tx, services, shown)
            return await confirm(tx, services, shown.card.origin, Confirmation(shown.fingerprint, "invitation", row.by))

        try:
            row = await services.store.write(operation)
        except NodeError as error:
            raise Unacceptable(str(error)) from None
        services.log.info("invitation accepted", peer=row.origin)
        reply = RegistrationReply(version=VERSION, origin=origin)
        return seal_reply(Secret(registration.reply_secret), encode_wire(reply)), row


def _name(invitation_id: str) -> bytes:
    return context("invitation", invitation_id.encode())


def read_invitation(given: str) -> str:
    """The text of an invitation given as a file's name, or as the link itself.

    Raises:
        OSError: the file cannot be read.
    """
    return given if given.startswith(LINK) else Path(given).read_text()
