"""Handovers: when to look at a message's deadlines next, what is overdue, and what people recorded."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "handovers",
        sa.Column("message", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("look_at_ms", sa.BigInteger()),
        sa.Column("looked_at_ms", sa.BigInteger()),
        sa.Column("overdue_since_ms", sa.BigInteger()),
        sa.Column("met_at_ms", sa.BigInteger()),
        sa.Column("met_by", sa.Text()),
        sa.Column("complete_at_ms", sa.BigInteger()),
        sa.Column("complete_by", sa.Text()),
        sa.ForeignKeyConstraint(["message"], ["messages.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("message"),
    )
    op.create_index("handovers_to_look_at", "handovers", ["look_at_ms"])
    op.create_index(
        "handovers_overdue",
        "handovers",
        ["overdue_since_ms"],
        sqlite_where=sa.text("overdue_since_ms IS NOT NULL"),
        postgresql_where=sa.text("overdue_since_ms IS NOT NULL"),
    )
