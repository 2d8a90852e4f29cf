"""Keys from fixed seeds, and a small log that they have signed."""

from collections.abc import Sequence

from exchange.crypto.merkle import Frontier, inclusion_path
from exchange.crypto.names import MessageId, Origin, SectionName
from exchange.crypto.proof import format_proof
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret
from exchange.crypto.section import SectionContext
from exchange.crypto.signing import SigningKeys
from exchange.crypto.statement import encode_statement, leaf_hash

HACKNEY = Origin("exchange.hackney.example")
ENFIELD = Origin("exchange.enfield.example")
MESSAGE = MessageId("0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10")
OTHER_MESSAGE = MessageId("0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a11")
HOUSING = SectionName("housing")
POLICE = SectionName("police")
NOW_S = 1_795_468_800

SIGNING = SigningKeys(Secret(b"\x01" * 32), Secret(b"\x02" * 32))
OTHER_SIGNING = SigningKeys(Secret(b"\x03" * 32), Secret(b"\x04" * 32))
VERIFIERS = SIGNING.verifiers(HACKNEY)
SEALING = SealingPrivateKey(Secret(b"\x05" * 32))
OTHER_SEALING = SealingPrivateKey(Secret(b"\x06" * 32))
CONTEXT = SectionContext(MESSAGE, HACKNEY, ENFIELD, HOUSING)

STATEMENTS = [encode_statement("receipt", b"body %d" % number) for number in range(7)]


def prove(statements: Sequence[bytes], index: int, signing: SigningKeys = SIGNING, origin: Origin = HACKNEY) -> str:
    """The proof of one statement in a log of exactly these."""
    frontier, nodes = Frontier(0, ()).append(leaf_hash(statement) for statement in statements)
    checkpoint = signing.sign_checkpoint(origin, frontier.size, frontier.root(), NOW_S)
    return format_proof(index, inclusion_path(index, frontier.size, dict(nodes)), checkpoint)


def flips(data: bytes, positions: Sequence[int] | None = None) -> list[bytes]:
    """`data` with each single bit changed, of all bytes or of those at `positions`."""
    changed = []
    for at in range(len(data)) if positions is None else positions:
        for bit in range(8):
            other = bytearray(data)
            other[at] ^= 1 << bit
            changed.append(bytes(other))
    return changed
