"""Agencies that fetch what is for them, or find it in a folder: tokens, what is offered to each, and how it is reached."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agency_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger()),
        sa.Column("used_at_ms", sa.BigInteger()),
        sa.ForeignKeyConstraint(["agency"], ["agencies.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
    op.create_table(
        "feeds",
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("word", sa.Text(), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.Column("asked_at_ms", sa.BigInteger()),
        sa.ForeignKeyConstraint(["agency"], ["agencies.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("agency"),
    )
    op.create_table(
        "offers",
        sa.Column("delivery", sa.BigInteger(), nullable=False),
        sa.Column("section", sa.Text(), nullable=False),
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("offered_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("fetched_at_ms", sa.BigInteger()),
        sa.ForeignKeyConstraint(["delivery"], ["outbox.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("delivery", "section"),
    )
    op.create_index("offers_in_order", "offers", ["agency", "rank", "number"])
    op.create_index("offers_by_event", "offers", ["agency", "event_id"])
    op.add_column("endpoints", sa.Column("way", sa.Text(), nullable=False, server_default=sa.text("'webhook'")))
    op.add_column("endpoints", sa.Column("folder", sa.Text()))
