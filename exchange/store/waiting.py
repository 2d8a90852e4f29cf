"""Forms that wait for a key to seal them to: each hangs on its row of the outbox, and goes with it.

Every query is by primary key or by the message's id.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select

from exchange.store.errors import NotFound
from exchange.store.outbox import remove_delivery
from exchange.store.tables import outbox, waiting_forms
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class WaitingForm:
    """A form, sealed under a key of its own, which the store key wraps; `sections` are names and readers."""

    delivery: int
    message_id: str
    peer: str
    urgent: int
    created_at_ms: int
    sections: bytes
    wrapped: bytes
    sealed: bytes
    state: str
    reason: str | None


_ADDED = tuple(waiting_forms.c)
_READ = (*_ADDED, outbox.c.state, outbox.c.reason)
_joined = select(*_READ).select_from(waiting_forms.join(outbox, outbox.c.number == waiting_forms.c.delivery))
_add = Sql(insert(waiting_forms).values({column.name: bindparam(column.name) for column in _ADDED}))
_of_delivery = Sql(_joined.where(waiting_forms.c.delivery == bindparam("delivery")))
_by_id = Sql(_joined.where(waiting_forms.c.message_id == bindparam("message_id")))
_delivery_of = Sql(select(waiting_forms.c.delivery).where(waiting_forms.c.message_id == bindparam("message_id")))
_all = Sql(_joined.order_by(waiting_forms.c.delivery.desc()))


async def add_waiting_form(tx: Transaction, form: WaitingForm) -> None:
    """Keep a form for its row of the outbox."""
    await tx.execute(_add, {column.name: getattr(form, column.name) for column in _ADDED})


async def form_of_delivery(tx: Transaction, delivery: int) -> WaitingForm | None:
    """The form of a row of the outbox."""
    row = await tx.fetch_one(_of_delivery, {"delivery": delivery})
    return WaitingForm(*row) if row else None


async def waiting_form(tx: Transaction, message_id: str) -> WaitingForm:
    """The form that will be the message of that id.

    Raises:
        NotFound: none waits under it.
    """
    row = await tx.fetch_one(_by_id, {"message_id": message_id})
    if row is None:
        raise NotFound(f"there is no message {message_id}")
    return WaitingForm(*row)


async def all_waiting_forms(tx: Transaction) -> list[WaitingForm]:
    """Every form that waits, newest first."""
    return [WaitingForm(*row) for row in await tx.fetch_all(_all, {})]


async def drop_waiting_form(tx: Transaction, message_id: str) -> None:
    """Forget a form that became a message elsewhere, with its place in the outbox."""
    row = await tx.fetch_one(_delivery_of, {"message_id": message_id})
    if row is not None:
        await remove_delivery(tx, int(row[0]))
