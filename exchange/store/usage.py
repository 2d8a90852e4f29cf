"""How much of the store the messages of each peer take.

Counted from number to number, so that each message is looked at once. Of a blob, the databases read the length alone.
`messages (number)` and `contents (message)` serve it.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, func, select

from exchange.store.tables import contents, messages
from exchange.store.transaction import Operation, Sql, Transaction

_sizes = Sql(
    select(
        messages.c.number,
        messages.c.peer,
        messages.c.direction,
        func.length(messages.c.statement) + func.coalesce(func.length(contents.c.sections), 0),
    )
    .select_from(messages.outerjoin(contents, contents.c.message == messages.c.number))
    .where(messages.c.number > bindparam("after"))
    .order_by(messages.c.number)
    .limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class Used:
    """So many messages, of so many bytes."""

    messages: int = 0
    bytes: int = 0

    def plus(self, other: "Used") -> "Used":
        """Both together."""
        return Used(self.messages + other.messages, self.bytes + other.bytes)


def used_after(number: int, most: int) -> Operation[tuple[dict[str, Used], int]]:
    """Count up to `most` messages after `number`: what each peer sent of them, and the last number looked at."""

    async def count(tx: Transaction) -> tuple[dict[str, Used], int]:
        found: dict[str, Used] = {}
        last = number
        for at, origin, direction, size_bytes in await tx.fetch_all(_sizes, {"after": number, "most": most}):
            last = int(at)
            if direction == "in":
                found[str(origin)] = found.get(str(origin), Used()).plus(Used(1, int(size_bytes)))
        return found, last

    return count
