"""Whether the last checkpoint in a store is signed by the keys that its log says are the node's."""

from exchange.crypto.checkpoint import parse_checkpoint
from exchange.crypto.errors import CryptoError
from exchange.crypto.names import parse_origin
from exchange.crypto.note import parse_vkey
from exchange.crypto.statement import parse_statement
from exchange.schema.errors import SchemaError
from exchange.schema.identity import ROTATION, rotation_decoder
from exchange.schema.wire import card_decoder, decode_wire
from exchange.store.checking import LogReport
from exchange.store.errors import StoreDamaged


def verify_head(report: LogReport) -> str:
    """Check the signatures of a log's last checkpoint; return the node's origin.

    Raises:
        StoreDamaged: they do not hold, or nothing says whose they should be.
    """
    if report.identity is None or report.head is None:
        raise StoreDamaged("the log names no signing keys")
    try:
        statement = parse_statement(report.identity)
        if statement.type == ROTATION:
            rotation = decode_wire(rotation_decoder, statement.body)
            origin, texts = parse_origin(rotation.origin), rotation.new
        else:
            card = decode_wire(card_decoder, statement.body)
            origin, texts = parse_origin(card.origin), card.signing_keys
        ed25519, mldsa44 = (parse_vkey(text) for text in texts)
        parse_checkpoint(report.head, origin, (ed25519, mldsa44))
    except (CryptoError, SchemaError) as error:
        raise StoreDamaged(f"the last checkpoint is not signed by the node's keys: {error}") from None
    return origin
