"""A section's content as bytes: a MessagePack map that JSON holds as it is, in one encoding. Pure.

Of a key that stands twice, two readers could take two texts out of one commitment.
"""

import gc
from typing import Any, Final

import msgspec

from exchange.crypto.secret import Plaintext
from exchange.schema.errors import ContentInvalid
from exchange.schema.form import MAX_FORM_BYTES

#: No sender makes more of a form, which is itself no larger. A byte of it can become eighty in memory.
_MOST_BYTES: Final = MAX_FORM_BYTES
_decoder: Final = msgspec.msgpack.Decoder(dict[str, Any])


def read_content(plaintext: Plaintext) -> dict[str, Any]:
    """The content of a section.

    Raises:
        ContentInvalid: it is not such a map, or it is larger than a form can be.
    """
    data = plaintext.reveal()
    if len(data) > _MOST_BYTES:
        raise ContentInvalid("a section's content is larger than a form")
    # There are no cycles in it, and of a million empty lists the collector would look at each again and again.
    collects = gc.isenabled()
    gc.disable()
    try:
        content = _decoder.decode(data)
        sound = bool(msgspec.json.decode(msgspec.json.encode(content)) == content)
        sound = sound and msgspec.msgpack.encode(content) == data
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError):
        sound = False
    finally:
        if collects:
            gc.enable()
    if not sound:
        raise ContentInvalid("a section's content is not well formed")
    return content
