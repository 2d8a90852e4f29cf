"""Parcels: the section secrets that one recipient key may have, sealed to it.

The context binds both origins, the key and the message, so a parcel cannot be forwarded as somebody else's.
Source: docs/protocol.md, "Parcels".
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from exchange.crypto.errors import NameInvalid, ParcelError, SealError
from exchange.crypto.names import MessageId, Origin, SealingKeyId, SectionName, context, parse_section_name
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
        secrets = _decoder.decode(plaintext)
        # A key that stands twice could give two readers two secrets; only one encoding of a parcel is accepted.
        if _encoder.encode(secrets) != plaintext:
            raise ParcelError("the parcel's content is not in its canonical encoding")
        return {parse_section_name(name): Secret(value) for name, value in secrets.items()}
    except (SealError, NameInvalid, msgspec.DecodeError, ValueError):
        raise ParcelError("the parcel does not open under this key and context") from None
