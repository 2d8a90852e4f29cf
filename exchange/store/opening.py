"""A node's store, by its URL."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import select

from exchange.store.errors import StoreMoved
from exchange.store.log import CheckpointSigner
from exchange.store.sqlite import open_sqlite
from exchange.store.tables import moved
from exchange.store.transaction import Sql, Store

SQLITE: Final = "sqlite:///"
_MOVED: Final = Sql(select(moved.c.url))


async def store_exists(url: str) -> bool:
    """Whether there is a store at `url`.

    Raises:
        StoreUnavailable: the server cannot be reached.
    """
    if url.startswith(SQLITE):
        return os.path.exists(url.removeprefix(SQLITE))  # noqa: ASYNC240 - as quick as a question can be
    from exchange.store.postgresql import has_tables

    return await has_tables(url)


async def open_store(url: str, sign: CheckpointSigner, now_ms: Callable[[], int]) -> Store:
    """Open the store at `url`, `sqlite:///FILE` or `postgresql://...`, making or migrating it first.

    Raises:
        StoreInUse: another process has the SQLite file open.
        StoreMoved: the node goes on in another store.
        StoreTooNew: a newer version of the program wrote it.
        StoreUnavailable: it cannot be reached, read or written.
    """
    store = await _open(url, sign, now_ms)
    try:
        await _refuse_if_moved(store)
    except BaseException:
        await store.close()
        raise
    return store


async def _open(url: str, sign: CheckpointSigner, now_ms: Callable[[], int]) -> Store:
    if url.startswith(SQLITE):
        return await open_sqlite(Path(url.removeprefix(SQLITE)), sign, now_ms)
    # Whoever stays with SQLite need not have the driver.
    from exchange.store.postgresql import open_postgresql

    return await open_postgresql(url, sign, now_ms)


async def _refuse_if_moved(store: Store) -> None:
    """Check that the node did not go on elsewhere.

    Raises:
        StoreMoved: it did.
    """
    row = await store.read(lambda tx: tx.fetch_one(_MOVED, {}))
    if row is not None:
        raise StoreMoved(f"this store was moved to {row[0]}")
