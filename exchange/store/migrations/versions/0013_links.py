"""One-time links by which agencies take sections on; which agencies get them."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "links",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("message", sa.BigInteger(), nullable=False),
        sa.Column("section", sa.Text(), nullable=False),
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("made_by", sa.Text()),
        sa.Column("made_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("used_at_ms", sa.BigInteger()),
        sa.Column("withdrawn_at_ms", sa.BigInteger()),
        sa.ForeignKeyConstraint(["message"], ["messages.number"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["agency"], ["agencies.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
    op.create_index("links_by_message", "links", ["message"])
    op.add_column("endpoints", sa.Column("links", sa.Integer(), nullable=False, server_default=sa.text("0")))
