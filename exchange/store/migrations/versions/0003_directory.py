"""The directory that the node has joined: its trusted metadata and what it lists; and whom people here stopped."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "directories",
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("ca_file", sa.Text()),
        sa.Column("networks", sa.Text(), nullable=False),
        sa.Column("peer_ca_file", sa.Text()),
        sa.Column("peer_networks", sa.Text(), nullable=False),
        sa.Column("joined_by", sa.Text(), nullable=False),
        sa.Column("joined_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("checked_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("refreshed_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expiries", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text()),
        sa.Column("detail", sa.Text()),
        sa.Column("problem_since_ms", sa.BigInteger()),
        sa.Column("alarmed", sa.Integer(), nullable=False),
        sa.Column("own", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("url"),
    )
    op.create_table(
        "directory_files",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "directory_entries",
        sa.Column("area", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text()),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("area"),
    )
    op.create_table(
        "stops",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("area", sa.Text()),
        sa.PrimaryKeyConstraint("origin"),
    )
