"""Several agencies of a kind, each with a name of its own, and which of them each section was given to.

Until now an agency's name was its kind, and it was given whatever waited for its kind.
"""

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE agencies RENAME COLUMN kind TO name")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE agencies RENAME CONSTRAINT agencies_kind_key TO agencies_name_key")
    op.add_column("placements", sa.Column("given_to", sa.Text()))
    op.execute(
        "UPDATE placements SET given_to = agency WHERE message IN (SELECT number FROM messages WHERE direction = 'in')"
    )
    # Where no agency of the kind is there, what waits is routed again when one is.
    op.execute(
        "UPDATE outbox SET lane = 'route:' || agency, kind = 'route'"
        " WHERE kind = 'webhook' AND agency NOT IN (SELECT name FROM agencies)"
    )
    op.execute(
        "UPDATE placements SET given_to = NULL WHERE given_to NOT IN (SELECT name FROM agencies)"
        " AND rung IN ('received', 'routed')"
    )
    _give_what_was_never_routed()


def _give_what_was_never_routed() -> None:
    """Of what an agency found waiting when it was registered, only what it has accepted had a row by now."""
    placements = sa.table(
        "placements", *(sa.column(name) for name in ("message", "section", "agency", "rung", "at_ms", "given_to"))
    )
    waiting = sa.text(
        "SELECT outbox.message, outbox.agency, messages.stored_at_ms, messages.statement"
        " FROM outbox JOIN messages ON messages.number = outbox.message WHERE outbox.kind = 'webhook'"
    )
    connection = op.get_bind()
    for number, agency, at_ms, statement in connection.execute(waiting).all():
        # A statement: its version, the length and the name of its type, the length of its body, the body.
        manifest = msgspec.msgpack.decode(bytes(statement).split(b" ", 4)[4])
        placed = sa.select(placements.c.section).where(placements.c.message == number, placements.c.agency == agency)
        missing = {entry["name"] for entry in manifest["sections"] if agency in entry["readers"]}
        for section in sorted(missing - set(connection.execute(placed).scalars())):
            row = {"message": number, "section": section, "agency": agency, "rung": "received", "at_ms": at_ms}
            connection.execute(sa.insert(placements).values(**row, given_to=agency))
