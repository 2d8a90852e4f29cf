"""What agencies say of sections: who holds them, questions, redirections; and who signs for an agency."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "acknowledgements",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column(
            "message", sa.BigInteger(), sa.ForeignKey("messages.number", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("section", sa.Text(), nullable=False),
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("rung", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("word_hash", sa.LargeBinary(), nullable=True),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
    )
    op.create_index("acknowledgements_by_message", "acknowledgements", ["message", "number"])
    op.create_index(
        "acknowledgements_queried",
        "acknowledgements",
        ["number"],
        sqlite_where=sa.text("rung = 'queried'"),
        postgresql_where=sa.text("rung = 'queried'"),
    )
    op.create_table(
        "signers",
        sa.Column(
            "message", sa.BigInteger(), sa.ForeignKey("messages.number", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("message", "agency"),
    )
    # It was never filled: who holds a section is sealed.
    op.drop_column("placements", "holder")
