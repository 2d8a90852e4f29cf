"""Attachments and their sealed chunks."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "attachments",
        sa.Column("number", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("section", sa.Text(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("message", _SERIAL),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("position", sa.BigInteger()),
        sa.Column("statement", sa.LargeBinary()),
        sa.Column("proof", sa.Text()),
        sa.Column("wrapped", sa.LargeBinary()),
        sa.Column("about", sa.LargeBinary()),
        sa.Column("scanned", sa.Integer(), nullable=False),
        sa.Column("released_by", sa.Text()),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["message"], ["messages.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("message_id", "origin", "section", "place"),
    )
    op.create_index("attachments_by_message", "attachments", ["message"])
    op.create_index("attachments_by_state", "attachments", ["state", "at_ms"])
    op.create_table(
        "attachment_chunks",
        sa.Column("attachment", _SERIAL, nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["attachment"], ["attachments.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("attachment", "place"),
    )
