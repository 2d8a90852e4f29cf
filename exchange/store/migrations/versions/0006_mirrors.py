"""What a peer gets back of its log where it lost it: leaf hashes, and its latest sightings; whether a store is of a backup."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "peer_leaves",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["origin"], ["peers.origin"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("origin", "first"),
    )
    op.create_table(
        "restored",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("log_size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "peer_sightings",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("proof", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["origin"], ["peers.origin"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("origin"),
    )
