"""A node's store, by its URL."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from exchange.store.log import CheckpointSigner
from exchange.store.sqlite import open_sqlite
from exchange.store.transaction import Store

SQLITE: Final = "sqlite:///"


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
        StoreTooNew: a newer version of the program wrote it.
        StoreUnavailable: it cannot be reached, read or written.
    """
    if url.startswith(SQLITE):
        return await open_sqlite(Path(url.removeprefix(SQLITE)), sign, now_ms)
    # Whoever stays with SQLite need not have the driver.
    from exchange.store.postgresql import open_postgresql

    return await open_postgresql(url, sign, now_ms)
