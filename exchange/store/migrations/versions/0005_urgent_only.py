"""Which lanes are at a limit that what is urgent may pass: the replicas of a node, and a new start, must know it too."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("lanes", sa.Column("urgent_only", sa.Integer(), nullable=False, server_default=sa.text("0")))
