"""The leaf hashes of peers' logs: what a peer that lost a part of its log gets it back from."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0002"
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
