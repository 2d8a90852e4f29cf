"""How each agency's endpoint stands and is reached, the secret that is going, and the node's key for webhooks.

An agency has one row here from when it is registered until it is removed.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update

from exchange.store.errors import NotFound
from exchange.store.tables import agencies, endpoints, webhook_keys
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """An endpoint. `retry_s` is a JSON list of seconds; what is None is as the configuration has it."""

    agency: str
    state: str
    reason: str | None
    since_ms: int
    stage: str = "single"
    old_wrapped_secret: bytes | None = None
    overlap_until_ms: int | None = None
    proven_at_ms: int | None = None
    timeout_ms: int | None = None
    retry_s: str | None = None
    certificate: str | None = None
    proxy: str | None = None
    rate_per_minute: int | None = None
    #: `webhook`, `pull` or `drop`.
    way: str = "webhook"
    #: Of a drop folder, in JSON.
    folder: str | None = None
    #: Whether its events have one-time links by which to take a section on.
    links: int = 0


_COLUMNS = tuple(endpoints.c)
_SET = tuple(column.name for column in endpoints.c if column.name != "agency")
_by_agency = Sql(select(*_COLUMNS).where(endpoints.c.agency == bindparam("agency")))
_all = Sql(select(*_COLUMNS))
_add = Sql(insert(endpoints).values({column.name: bindparam(column.name) for column in _COLUMNS}))
_keep = Sql(
    update(endpoints)
    .where(endpoints.c.agency == bindparam("key"))
    .values({name: bindparam(f"new_{name}") for name in _SET})
)
_wants_links = Sql(
    select(endpoints.c.links)
    .join(agencies, agencies.c.id == endpoints.c.agency)
    .where(agencies.c.name == bindparam("name"))
)
_key = Sql(select(webhook_keys.c.wrapped_seed))
_add_key = Sql(insert(webhook_keys).values(id=1, wrapped_seed=bindparam("wrapped_seed"), at_ms=bindparam("at_ms")))


async def endpoint_of(tx: Transaction, agency_id: str) -> EndpointRow:
    """The endpoint of an agency.

    Raises:
        NotFound: no such agency is registered.
    """
    row = await tx.fetch_one(_by_agency, {"agency": agency_id})
    if row is None:
        raise NotFound(f"no agency {agency_id} is registered", hint="`exchange agency list` lists those that are.")
    return EndpointRow(*row)


async def all_endpoints(tx: Transaction) -> dict[str, EndpointRow]:
    """Every endpoint, by the id of its agency."""
    return {str(row[0]): EndpointRow(*row) for row in await tx.fetch_all(_all, {})}


async def wants_links(tx: Transaction, name: str) -> bool:
    """Whether the agency of that name gets one-time links with its sections; the unique index on names serves it."""
    row = await tx.fetch_one(_wants_links, {"name": name})
    return row is not None and bool(row[0])


async def add_endpoint(tx: Transaction, row: EndpointRow) -> None:
    """Keep the endpoint of an agency that was just registered."""
    await tx.execute(_add, {column.name: getattr(row, column.name) for column in _COLUMNS})


async def keep_endpoint(tx: Transaction, row: EndpointRow) -> None:
    """Keep an endpoint as it is now."""
    await tx.execute(_keep, {"key": row.agency, **{f"new_{name}": getattr(row, name) for name in _SET}})


async def wrapped_webhook_key(tx: Transaction) -> bytes | None:
    """The seed of the node's key for webhooks, wrapped."""
    row = await tx.fetch_one(_key, {})
    return None if row is None else bytes(row[0])


async def add_webhook_key(tx: Transaction, wrapped_seed: bytes, now_ms: int) -> None:
    """Keep the node's key for webhooks."""
    await tx.execute(_add_key, {"wrapped_seed": wrapped_seed, "at_ms": now_ms})
