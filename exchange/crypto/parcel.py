"""Parcels: the section secrets that one recipient key may have, sealed to it.

The context binds both origins, the key and the message, so a parcel cannot be forwarded as somebody else's.
Source: docs/protocol.md, "Parcels".
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from exchange.crypto.errors import ParcelError, SealError
from exchange.crypto.names import MessageId, Origin, SealingKeyId, SectionName, context
from exchange.crypto.sealing import SealingPrivateKey, SealingPublicKey, open_sealed, seal
from exchange.crypto.secret import Secret

_decoder = msgspec.msgpack.Decoder(dict[str, Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]])
_encoder = msgspec.msgpack.Encoder(order="deterministic")


def _info(sender: Origin, recipient: Origin, key: SealingKeyId, message_id: MessageId) -> bytes:
    return context("parcel", sender.encode(), recipient.encode(), key, message_id.encode())


def seal_parcel(
    secrets: Mapping[SectionName, Secret],
    key: SealingPublicKey,
    sender: Origin,
    recipient: Origin,
    message_id: MessageId,
) -> bytes:
    """Seal the secrets of the sections that the holder of `key` may read."""
    plaintext = _encoder.encode({name: secret.reveal() for name, secret in secrets.items()})
    return seal(key, _info(sender, recipient, key.key_id, message_id), plaintext)


def open_parcel(
    parcel: bytes, key: SealingPrivateKey, sender: Origin, recipient: Origin, message_id: MessageId
) -> dict[SectionName, Secret]:
    """Open a parcel.

    Raises:
        ParcelError: of another key, message or origin, or altered.
    """
    try:
        plaintext = open_sealed(key, _info(sender, recipient, key.public.key_id, message_id), parcel)
        return {SectionName(name): Secret(value) for name, value in _decoder.decode(plaintext).items()}
    except (SealError, msgspec.DecodeError, ValueError):
        raise ParcelError("the parcel does not open under this key and context") from None
