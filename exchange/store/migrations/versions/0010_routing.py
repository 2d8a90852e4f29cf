"""Several agencies of a kind, each with a name of its own, and to which of them each section was given.

Until now an agency's name was its kind. What is held because no agency of a kind was there waits to be routed.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("agencies", "kind", new_column_name="name") if _is_postgresql() else op.execute(
        "ALTER TABLE agencies RENAME COLUMN kind TO name"
    )
    if _is_postgresql():
        op.execute("ALTER TABLE agencies RENAME CONSTRAINT agencies_kind_key TO agencies_name_key")
    op.add_column("placements", sa.Column("given_to", sa.Text()))
    op.execute(
        "UPDATE placements SET given_to = agency"
        " WHERE message IN (SELECT number FROM messages WHERE direction = 'in')"
    )
