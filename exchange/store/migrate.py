"""Bring a database to the schema of this version (Alembic); refuse one from the future."""

from pathlib import Path
from typing import Any

import pysqlite3
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from exchange.store.errors import StoreTooNew, StoreUnavailable

_SCRIPTS = Path(__file__).parent / "migrations"


def latest_revision() -> str:
    """The revision of this version's tables."""
    return ScriptDirectory(str(_SCRIPTS)).get_current_head() or ""


def migrate(connection: Connection, revision: str = "head") -> None:
    """Run what is missing of the migrations, up to a revision.

    Raises:
        StoreTooNew: the database names a revision that this version does not know.
    """
    scripts = ScriptDirectory(str(_SCRIPTS))
    known = {script.revision for script in scripts.walk_revisions()}

    def upgrade(present: Any, _: MigrationContext) -> Any:
        return scripts._upgrade_revs(revision, present)

    context = MigrationContext.configure(connection, opts={"fn": upgrade, "script": scripts})
    current = context.get_current_revision()
    if current is not None and current not in known:
        raise StoreTooNew(f"the store is at revision {current}, which this version does not know")
    if revision != "head" and revision not in known:
        raise StoreTooNew(f"the backup is of revision {revision}, which this version does not know")
    with Operations.context(context):
        context.run_migrations()


def migrate_sqlite(path: Path, revision: str = "head") -> None:
    """Migrate the SQLite file at `path` before anything else opens it.

    Raises:
        StoreTooNew: a newer version of the program wrote it.
        StoreUnavailable: the file is not a database, or cannot be written.
    """
    engine = create_engine(f"sqlite:///{path}", module=pysqlite3, poolclass=NullPool)
    # The driver's own transactions do not hold CREATE statements: half a migration would stay.
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            migrate(connection, revision)
    except DatabaseError as error:
        raise StoreUnavailable(f"cannot open the store at {path}: {error.orig}") from None
    finally:
        engine.dispose()


def _leave_transactions_to_us(connection: Any, _: Any) -> None:
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
