"""Candidates, verifications, rotations, revocations and invitations; sealing keys under keys of their epochs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("peers", sa.Column("candidate", sa.Text()))
    op.add_column("peers", sa.Column("candidate_card", sa.LargeBinary()))
    op.add_column("peers", sa.Column("candidate_proof", sa.Text()))
    op.add_column("peers", sa.Column("first_by", sa.Text()))
    op.add_column("peers", sa.Column("networks", sa.Text(), nullable=False, server_default="[]"))
    # What is in it is under another key; the node makes a new one at its start.
    op.drop_table("sealing_keys")
    op.create_table(
        "sealing_keys",
        sa.Column("key_id", sa.LargeBinary(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("wrapped_seed", sa.LargeBinary(), nullable=False),
        sa.Column("not_before_ms", sa.BigInteger(), nullable=False),
        sa.Column("not_after_ms", sa.BigInteger(), nullable=False),
        sa.Column("opens_until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id"),
        sa.UniqueConstraint("epoch"),
    )
    op.create_table(
        "verifications",
        sa.Column("number", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("verifications_by_origin", "verifications", ["origin", "number"])
    op.create_table(
        "rotations",
        sa.Column("old_fingerprint", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("new_fingerprint", sa.Text(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("proof", sa.Text()),
        sa.Column("position", sa.BigInteger()),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("old_fingerprint"),
    )
    op.create_index("rotations_by_origin", "rotations", ["origin"])
    op.create_table(
        "revocations",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("proof", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint"),
    )
    op.create_index("revocations_by_origin", "revocations", ["origin"])
    op.create_table(
        "waiting_forms",
        sa.Column("delivery", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("urgent", sa.Integer(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("sections", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["delivery"], ["outbox.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("delivery"),
        sa.UniqueConstraint("message_id"),
    )
    op.create_table(
        "invitations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("wrapped_secret", sa.LargeBinary(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
