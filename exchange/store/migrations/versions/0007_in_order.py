"""Keys that grow at their end: a row that is added touches few pages, however many there are. Peers by area."""

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

#: Only a key of this type is the number of the row itself.
_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("peers", sa.Column("area", sa.Text, nullable=False, server_default=sa.text("''")))
    op.create_index("peers_by_area", "peers", ["area"])
    peers = sa.table("peers", sa.column("origin"), sa.column("card"), sa.column("area"))
    for origin, card in op.get_bind().execute(sa.select(peers.c.origin, peers.c.card)).all():
        # A statement: its version, the length and the name of its type, the length of its body, the body.
        body = msgspec.msgpack.decode(bytes(card).split(b" ", 4)[4])
        op.get_bind().execute(sa.update(peers).where(peers.c.origin == origin).values(area=body["area"]))
    if op.get_bind().dialect.name == "sqlite":
        for table in _tables(sa.MetaData()):
            # What is copied from the definition alone is the table made anew.
            with op.batch_alter_table(table.name, copy_from=table, recreate="always"):
                pass
        return
    op.drop_constraint("statements_leaf_hash_key", "statements")
    op.drop_index("receipts_by_message", "receipts")
    op.drop_constraint("receipts_pkey", "receipts")
    op.create_primary_key("receipts_pkey", "receipts", ["message", "leaf_hash"])
    op.drop_index("messages_by_id", "messages")
    op.drop_constraint("messages_origin_message_id_key", "messages")
    op.create_unique_constraint("messages_message_id_origin_key", "messages", ["message_id", "origin"])


def _tables(metadata: sa.MetaData) -> list[sa.Table]:
    messages = sa.Table(
        "messages",
        metadata,
        sa.Column("number", _Number, primary_key=True, autoincrement=True),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("direction", sa.Text, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
        sa.Column("statement", sa.LargeBinary, nullable=False),
        sa.Column("proof", sa.Text),
        sa.Column("position", sa.BigInteger),
        sa.Column("received_position", sa.BigInteger),
        sa.Column("urgent", sa.Integer, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("stored_at_ms", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("message_id", "origin"),
        sa.Index("messages_by_direction", "direction", "number"),
    )
    statements = sa.Table(
        "statements",
        metadata,
        sa.Column("position", _Number, primary_key=True, autoincrement=False),
        sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("statement", sa.LargeBinary, nullable=False),
    )
    checkpoints = sa.Table(
        "checkpoints",
        metadata,
        sa.Column("size", _Number, primary_key=True, autoincrement=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    message_keys = sa.Table(
        "message_keys",
        metadata,
        sa.Column("message", _Number, sa.ForeignKey("messages.number", ondelete="CASCADE"), primary_key=True),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("secrets", sa.LargeBinary, nullable=False),
    )
    contents = sa.Table(
        "contents",
        metadata,
        sa.Column("message", _Number, sa.ForeignKey("messages.number", ondelete="CASCADE"), primary_key=True),
        sa.Column("sections", sa.LargeBinary, nullable=False),
    )
    receipts = sa.Table(
        "receipts",
        metadata,
        sa.Column("message", sa.BigInteger, sa.ForeignKey("messages.number", ondelete="CASCADE"), primary_key=True),
        sa.Column("leaf_hash", sa.LargeBinary, primary_key=True),
        sa.Column("rung", sa.Text, nullable=False),
        sa.Column("statement", sa.LargeBinary, nullable=False),
        sa.Column("proof", sa.Text),
        sa.Column("position", sa.BigInteger),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    return [messages, statements, checkpoints, message_keys, contents, receipts]
