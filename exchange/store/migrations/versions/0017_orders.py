"""Orders of senders to recall or erase sections, and what each node and agency did about them."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("number", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("message", sa.BigInteger(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("sections", sa.Text(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("proof", sa.Text()),
        sa.Column("position", sa.BigInteger()),
        sa.Column("ordered_by", sa.Text()),
        sa.Column("outcome", sa.Text()),
        sa.Column("scrubbed", sa.Integer(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("stored_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["message"], ["messages.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("message", "leaf_hash"),
    )
    op.create_index(
        "orders_to_scrub",
        "orders",
        ["number"],
        sqlite_where=sa.text("scrubbed = 0"),
        postgresql_where=sa.text("scrubbed = 0"),
    )
    op.create_table(
        "order_places",
        sa.Column("order_number", sa.BigInteger(), nullable=False),
        sa.Column("section", sa.Text(), nullable=False),
        sa.Column("agency", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("had", sa.Text()),
        sa.Column("destroyed_at_ms", sa.BigInteger()),
        sa.Column("told_at_ms", sa.BigInteger()),
        sa.Column("confirmed_at_ms", sa.BigInteger()),
        sa.Column("confirmed_by", sa.Text()),
        sa.ForeignKeyConstraint(["order_number"], ["orders.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("order_number", "section", "agency", "name"),
    )
    op.create_index(
        "order_places_unconfirmed",
        "order_places",
        ["order_number"],
        sqlite_where=sa.text("confirmed_at_ms IS NULL"),
        postgresql_where=sa.text("confirmed_at_ms IS NULL"),
    )
