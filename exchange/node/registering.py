"""Register a node whose identity was proven to be the one that is meant: it is shown and confirmed in one transaction.

Before that, a card from a URL is in memory alone: who serves a false one at the address of a verified peer must not
be able to block that peer.
"""

import json
from dataclasses import dataclass, replace

from exchange.node.errors import NotNow, RequestInvalid
from exchange.node.peer_client import PeerClient, Place
from exchange.node.peering import Confirmation, confirm, show_card
from exchange.node.services import Services
from exchange.node.trust import Trust
from exchange.schema.card_file import VerifiedCard
from exchange.store.errors import NotFound
from exchange.store.peers import PeerRow, keep_peer, peer
from exchange.store.transaction import Transaction
from exchange.store.trust import VerificationRow, add_verification


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the admin allows for a peer's connections: a CA file, and networks that are not routed globally."""

    ca_file: str | None = None
    networks: tuple[str, ...] = ()

    def place(self, url: str) -> Place:
        """Where a node is that is not registered yet."""
        return Place(url, self.ca_file, json.dumps(self.networks))


async def fetch_shown(client: PeerClient, url: str, allowance: Allowance) -> VerifiedCard:
    """The card at a URL that an admin gave; nothing says yet whose it is.

    Raises:
        NotNow: the node cannot be reached.
        RequestInvalid: what it serves is no card.
        IdentityRevoked: it shows a revocation.
    """
    try:
        return await client.fetch_card(allowance.place(url))
    except NotNow as error:
        raise NotNow(
            str(error),
            hint="Check the URL with its admin: a node with mutual TLS has another one for this. A private authority "
            "needs --ca-file, and a network that is not on the internet --allow-network.",
        ) from None


async def known_peer(tx: Transaction, origin: str) -> PeerRow | None:
    """The registered peer of an origin, if there is one."""
    try:
        return await peer(tx, origin)
    except NotFound:
        return None


async def register(
    tx: Transaction, services: Services, shown: VerifiedCard, allowance: Allowance, confirmation: Confirmation
) -> PeerRow:
    """Register a node, or what it is now, and confirm it; one that is verified already stays so.

    Raises:
        RequestInvalid: the card is not one to register a peer by.
        PeerUntrusted: the identity was revoked, or a second person must confirm.
    """
    row = await known_peer(tx, shown.card.origin)
    if row is None or row.fingerprint != shown.fingerprint or row.serial < shown.card.serial:
        row = await show_card(tx, services, shown, allowance.ca_file)
    changed = replace(
        row,
        ca_file=allowance.ca_file or row.ca_file,
        networks=json.dumps(allowance.networks) if allowance.networks else row.networks,
    )
    await keep_peer(tx, changed)
    if changed.state == Trust.VERIFIED and changed.fingerprint == shown.fingerprint:
        by, at_ms = confirmation, services.now_ms()
        await add_verification(tx, VerificationRow(changed.origin, by.fingerprint, by.how, by.who, at_ms))
        return changed
    return await confirm(tx, services, changed.origin, confirmation)


def refuse_revoked(services: Services) -> None:
    """Nobody is registered with a node whose own identity is revoked.

    Raises:
        RequestInvalid: it is.
    """
    if services.revoked.file is not None:
        raise RequestInvalid("this node's identity is revoked; make a new node")
