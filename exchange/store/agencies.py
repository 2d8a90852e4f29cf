"""The borough's registered agencies and the bearer tokens of the local API; both lists are short."""

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import bindparam, delete, insert, select, update

from exchange.schema.agency_names import kind_of
from exchange.store.errors import AlreadyThere, NotFound
from exchange.store.tables import agencies, agency_keys, endpoints, tokens
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class AgencyRow:
    """An agency's endpoint; `networks` are CIDR texts joined by commas that its address may lie in."""

    id: str
    name: str
    url: str
    wrapped_secret: bytes
    networks: str
    ca_file: str | None
    added_at_ms: int

    @property
    def kind(self) -> str:
        """The kind of agency: what a sender knows of it."""
        return kind_of(self.name)


class Standing(NamedTuple):
    """An agency's name, and how its endpoint stands; `waits` where it is yet to prove the key that it asked for."""

    name: str
    state: str
    reason: str | None
    waits: bool


_COLUMNS = tuple(agencies.c)
_all = Sql(select(*_COLUMNS).order_by(agencies.c.name))
_by_name = Sql(select(*_COLUMNS).where(agencies.c.name == bindparam("name")))
_standing = Sql(
    select(agencies.c.name, endpoints.c.state, endpoints.c.reason, agency_keys.c.agency)
    .select_from(
        agencies.join(endpoints, endpoints.c.agency == agencies.c.id).outerjoin(
            agency_keys,
            (agency_keys.c.agency == agencies.c.id) & agency_keys.c.proven_at_ms.is_(None) & (agency_keys.c.holds == 1),
        )
    )
    .order_by(agencies.c.name)
)
_by_id = Sql(select(*_COLUMNS).where(agencies.c.id == bindparam("id")))
_add = Sql(insert(agencies).values({column.name: bindparam(column.name) for column in _COLUMNS}))
_set_secret = Sql(
    update(agencies).where(agencies.c.id == bindparam("key")).values(wrapped_secret=bindparam("new_secret"))
)
_remove = Sql(delete(agencies).where(agencies.c.id == bindparam("id")))
_add_token = Sql(insert(tokens).values({column.name: bindparam(column.name) for column in tokens.c}))
_token = Sql(select(tokens.c.name, tokens.c.expires_at_ms).where(tokens.c.hash == bindparam("hash")))


async def all_agencies(tx: Transaction) -> list[AgencyRow]:
    """Every registered agency, by name."""
    return [AgencyRow(*row) for row in await tx.fetch_all(_all, {})]


async def agency_named(tx: Transaction, name: str) -> AgencyRow | None:
    """The agency of that name, if there is one."""
    row = await tx.fetch_one(_by_name, {"name": name})
    return AgencyRow(*row) if row else None


async def standing_agencies(tx: Transaction) -> list[Standing]:
    """How every registered agency stands, by name."""
    rows = await tx.fetch_all(_standing, {})
    return [Standing(str(row[0]), str(row[1]), row[2], row[3] is not None) for row in rows]


async def agency(tx: Transaction, agency_id: str) -> AgencyRow:
    """The agency with that id.

    Raises:
        NotFound: there is none.
    """
    row = await tx.fetch_one(_by_id, {"id": agency_id})
    if row is None:
        raise NotFound(f"no agency {agency_id} is registered", hint="`exchange agency list` lists those that are.")
    return AgencyRow(*row)


async def add_agency(tx: Transaction, row: AgencyRow) -> None:
    """Register an agency.

    Raises:
        AlreadyThere: one of that name is registered.
    """
    present = await agency_named(tx, row.name)
    if present is not None:
        raise AlreadyThere(
            f"an agency {row.name} is registered already, as {present.id}",
            hint=f"For another of its kind, give it a label: exchange agency add {row.kind}/LABEL",
        )
    await tx.execute(_add, {column.name: getattr(row, column.name) for column in _COLUMNS})


async def set_secret(tx: Transaction, agency_id: str, wrapped_secret: bytes) -> None:
    """Give an agency another webhook secret."""
    await tx.execute(_set_secret, {"key": agency_id, "new_secret": wrapped_secret})


async def remove_agency(tx: Transaction, agency_id: str) -> None:
    """Forget an agency.

    Raises:
        NotFound: there is none.
    """
    if await tx.execute(_remove, {"id": agency_id}) == 0:
        raise NotFound(f"no agency {agency_id} is registered", hint="`exchange agency list` lists those that are.")


async def add_token(
    tx: Transaction, token_id: str, name: str, digest: bytes, now_ms: int, expires_at_ms: int | None
) -> None:
    """Keep the SHA-256 of a bearer token."""
    await tx.execute(
        _add_token,
        {"id": token_id, "name": name, "hash": digest, "created_at_ms": now_ms, "expires_at_ms": expires_at_ms},
    )


async def token_name(tx: Transaction, digest: bytes, now_ms: int) -> str | None:
    """The name of the token of that SHA-256, where it was issued and has not expired."""
    row = await tx.fetch_one(_token, {"hash": digest})
    return str(row[0]) if row is not None and (row[1] is None or row[1] > now_ms) else None
