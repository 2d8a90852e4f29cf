"""Webhooks: how each endpoint stands and is reached, its secret that is going, attempts, and the node's key for `v1a`."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "endpoints",
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("old_wrapped_secret", sa.LargeBinary()),
        sa.Column("overlap_until_ms", sa.BigInteger()),
        sa.Column("proven_at_ms", sa.BigInteger()),
        sa.Column("timeout_ms", sa.BigInteger()),
        sa.Column("retry_s", sa.Text()),
        sa.Column("certificate", sa.Text()),
        sa.Column("proxy", sa.Text()),
        sa.Column("rate_per_minute", sa.BigInteger()),
        sa.ForeignKeyConstraint(["agency"], ["agencies.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("agency"),
    )
    op.execute(
        "INSERT INTO endpoints (agency, state, since_ms, stage) SELECT id, 'active', added_at_ms, 'single' FROM agencies"
    )
    op.create_table(
        "attempts",
        sa.Column("number", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("message", sa.BigInteger(), nullable=False),
        sa.Column("delivery", sa.BigInteger(), nullable=False),
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("section", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("replay", sa.Integer(), nullable=False),
        sa.Column("accepted", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.Column("content_type", sa.Text()),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("digest", sa.Text()),
        sa.Column("code", sa.Text()),
        sa.ForeignKeyConstraint(["message"], ["messages.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("attempts_by_message", "attempts", ["message", "agency", "number"])
    op.create_index("attempts_by_time", "attempts", ["at_ms"])
    op.create_table(
        "webhook_keys",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("wrapped_seed", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column("outbox", sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("lanes", sa.Column("since_ms", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
