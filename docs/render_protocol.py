"""Print the fields and types of the structs in docs/protocol.md from the code: `python docs/render_protocol.py`.

The meanings beside them are written by hand; `tests/docs/test_protocol.py` holds fields, order and types current.
"""

import re
import sys
from pathlib import Path
from typing import Any, Final, cast

from msgspec import inspect

from exchange.schema import agency_keys, attachments, identity, registration, rejoining, wire

PAGE: Final = Path(__file__).with_name("protocol.md")
STRUCTS: Final = (
    wire.ProvenStatement,
    wire.Card,
    wire.CardSealingKey,
    wire.CardAgency,
    wire.Manifest,
    wire.SectionEntry,
    wire.ParcelEntry,
    wire.Receipt,
    wire.Placement,
    wire.Words,
    wire.WordEntry,
    wire.AgencyStatement,
    wire.Acknowledgement,
    wire.Order,
    wire.Sightings,
    wire.EnvelopePayload,
    wire.Consistency,
    wire.Leaves,
    wire.ReplyPayload,
    wire.Result,
    wire.ProblemDetails,
    identity.Rotation,
    identity.Revocation,
    registration.Registration,
    registration.RegistrationReply,
    registration.PairingOffer,
    registration.PairingAnswer,
    registration.PairingReveal,
    rejoining.RejoinRequest,
    rejoining.Ask,
    rejoining.RejoinAnswer,
    rejoining.Run,
    agency_keys.Possession,
    attachments.Attachment,
    attachments.Chunk,
    attachments.AttachmentReport,
)
_PATTERNS: Final = {
    "EWSN": "area",
    "{3}-": "message id",
    "0,39": "agency kind",
    "0,79": "section name",
    "206f": "line",
    "!-~": "URL",
    "{32}": "32 hexadecimal digits",
}


def fields_of(struct: type[wire.Wire]) -> list[tuple[str, str]]:
    """Each field of a struct and what it holds, in the order of the encoding."""
    return [
        (f"`{field.encode_name}`", _described(field.type) + ("" if field.required else "; may be absent"))
        for field in _info(struct).fields
    ]


def _info(struct: type[wire.Wire]) -> inspect.StructType:
    return cast("inspect.StructType", inspect.type_info(struct))


def fields_on_page(text: str, struct: type[wire.Wire]) -> list[tuple[str, str]]:
    """The first two columns of the table that follows the line `**Name**` of a struct on the page."""
    _, _, after = text.partition(f"\n**{struct.__name__}**")
    rows = re.search(r"\n\| field .*\n\|[-|]+\n((?:\|.*\n)+)", after)
    if rows is None:
        return []
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1].splitlines()]
    return [(cell[0], cell[1]) for cell in cells]


def _described(kind: Any) -> str:
    match kind:
        case inspect.UnionType(types=(inner, inspect.NoneType())):
            return _described(inner)
        case inspect.StructType(cls=cls):
            return str(cls.__name__)
        case inspect.VarTupleType(item_type=item, min_length=least, max_length=most):
            return f"array of {_described(item)}" + _bounded(least, most)
        case inspect.BytesType(min_length=least, max_length=most):
            return f"bin {most}" if least is not None and least == most else "bin" + _bounded(least, most)
        case inspect.StrType(pattern=None, min_length=least, max_length=most):
            return "str" + _bounded(least, most)
        case inspect.StrType(pattern=pattern):
            return next(name for part, name in _PATTERNS.items() if part in str(pattern))
        case inspect.IntType(ge=least, le=most):
            return "1" if least == most else "integer"
        case inspect.DateTimeType():
            return "time"
        case inspect.BoolType():
            return "bool"
        case inspect.EnumType(cls=wire.Rung):
            return "rung"
        case inspect.EnumType(cls=wire.OrderKind):
            return "kind of order"
        case inspect.EnumType(cls=wire.OrderReason):
            return "reason"
        case inspect.EnumType(cls=attachments.AttachmentState):
            return "state of an attachment"
        case inspect.EnumType(cls=attachments.AttachmentState):
            return "state of an attachment"
    raise TypeError(f"the page has no word for {kind}")


def _bounded(least: int | None, most: int | None) -> str:
    if most is None:
        return ""
    if least is None:
        return f", at most {most:,}"
    return f", {least}" if least == most else f", {least} to {most:,}"


if __name__ == "__main__":
    for one in STRUCTS:
        rows = "".join(f"| {name} | {described} |\n" for name, described in fields_of(one))
        sys.stdout.write(f"\n**{one.__name__}**\n\n{rows}")
