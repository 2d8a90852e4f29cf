"""What agencies say, at rest: under the key of the message that it is about, so that erasing that erases it too.

* Here it is what was said, and the ciphertexts for the sender. There it is as much as the node opens, and the
  ciphertexts where the counterpart opens the rest.
* Of a message whose content was erased, what is said from then on is not kept.
"""

import msgspec

from exchange.crypto.errors import RestError
from exchange.crypto.names import context
from exchange.crypto.rest import open_at_rest, seal_at_rest, unwrap_message_key
from exchange.node.compose import message_name
from exchange.node.services import Services
from exchange.schema.words import Said
from exchange.store.acknowledgements import AcknowledgementRow, acknowledgement_at
from exchange.store.errors import NotFound
from exchange.store.messages import MessageRow, keys_of, message_by_number
from exchange.store.transaction import Transaction


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of one word: as much as can be read here, and what carries it to whoever reads the rest."""

    said: Said
    ciphertexts: tuple[bytes, ...] = ()
    #: Who said it for the agency, at the borough.
    who: str | None = None

    def __repr__(self) -> str:
        return "Kept(...)"


_decode = msgspec.msgpack.Decoder(Kept).decode


async def seal_said(
    services: Services, tx: Transaction, message: MessageRow, leaf_hash: bytes, kept: Kept
) -> bytes | None:
    """What was said, for the store; None where the message was erased."""
    name = message_name(message.origin, message.message_id)
    try:
        keys = await keys_of(tx, message.number)
    except NotFound:
        return None
    key = unwrap_message_key(services.keyring.store_key, keys.wrapped, name)
    return seal_at_rest(key, context("words", name, leaf_hash), msgspec.msgpack.encode(kept))


async def open_said(services: Services, tx: Transaction, message: MessageRow, row: AcknowledgementRow) -> Kept | None:
    """What was said, from the store; None where it was erased."""
    if row.sealed is None:
        return None
    name = message_name(message.origin, message.message_id)
    try:
        keys = await keys_of(tx, message.number)
        key = unwrap_message_key(services.keyring.store_key, keys.wrapped, name)
        return _decode(open_at_rest(key, context("words", name, row.leaf_hash), row.sealed))
    except (NotFound, RestError):
        return None


async def ciphertexts_at(services: Services, tx: Transaction, number: int, position: int) -> list[bytes]:
    """What goes with the receipt at a position of this node's log; nothing where it was erased."""
    row = await acknowledgement_at(tx, number, position)
    if row is None:
        return []
    kept = await open_said(services, tx, await message_by_number(tx, number), row)
    return [] if kept is None else list(kept.ciphertexts)
