"""What an operation sees of the database, whichever it is.

An operation is an `async` function of one transaction. It awaits nothing but that transaction: on SQLite its
awaits never suspend and it runs in one go, a long one in the writer thread and any other between two turns of the
event loop; on PostgreSQL they wait for the server.
Statements are SQLAlchemy Core, compiled once for each dialect and run on the driver itself.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, cast

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement

from exchange.crypto.names import LeafHash

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
Parameters: TypeAlias = Mapping[str, Any]


class Compiled(NamedTuple):
    """A statement's text, and what puts parameters, with the statement's own constants, into the order it counts."""

    text: str
    values: Callable[[Parameters], tuple[Any, ...]]


class Sql:
    """One statement, compiled for a dialect at its first use there and then kept."""

    __slots__ = ("_compiled", "element")

    def __init__(self, element: ClauseElement) -> None:
        self.element = element
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: Dialect) -> "Compiled":
        """The statement as that dialect has it."""
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled = cast("SQLCompiler", self.element.compile(dialect=dialect))
            # A constant may be None, so only what is required is left for `parameters` to give.
            given = {bind.key for bind in compiled.binds.values() if bind.required}
            constants = {name: value for name, value in compiled.params.items() if name not in given}
            values = _in_order(tuple(compiled.positiontup or ()), constants)
            found = self._compiled[dialect.name] = Compiled(str(compiled), values)
        return found


def _in_order(names: tuple[str, ...], constants: Parameters) -> Callable[[Parameters], tuple[Any, ...]]:
    if not names:
        return lambda _: ()
    pick = itemgetter(*names) if len(names) > 1 else lambda given: (given[names[0]],)
    return (lambda given: pick({**constants, **given})) if constants else pick


class LogEntry:
    """A statement appended in this transaction; `proof` and `size` can be read once the batch is committed."""

    __slots__ = ("_prove", "leaf_hash", "position", "size", "statement")

    def __init__(self, statement: bytes, leaf_hash: LeafHash) -> None:
        self.statement = statement
        self.leaf_hash = leaf_hash
        self.position = -1
        #: The log's size at the checkpoint under which the proof is.
        self.size = -1
        self._prove: Callable[[int], str] | None = None

    @property
    def proof(self) -> str:
        if self._prove is None:
            raise RuntimeError("the batch of this statement has not been committed")
        return self._prove(self.position)

    def committed(self, prove: Callable[[int], str], size: int) -> None:
        """The batch is durable; `prove` makes the tlog-proof of a position in it, under a checkpoint of that size."""
        self._prove, self.size = prove, size


class Transaction(Protocol):
    """A transaction in which one operation runs."""

    async def execute(self, sql: Sql, parameters: Parameters) -> int:
        """Run one statement; return the number of rows that it touched."""

    async def execute_many(self, sql: Sql, rows: Sequence[Parameters]) -> None:
        """Run one statement for each of `rows`."""

    async def fetch_all(self, sql: Sql, parameters: Parameters) -> list[Row]:
        """Run a query; return its rows."""

    async def fetch_one(self, sql: Sql, parameters: Parameters) -> Row | None:
        """Run a query; return its first row, or None."""

    async def insert(self, sql: Sql, parameters: Parameters) -> int:
        """Insert one row whose statement returns the row's number; return that number."""

    async def sign(self, statement_type: str, body: bytes) -> LogEntry:
        """Append a statement to the node's log; the batch's checkpoint signs it."""


Operation: TypeAlias = Callable[[Transaction], Awaitable[T]]


class Store(Protocol):
    """A database with one batching writer."""

    @property
    def shared(self) -> bool:
        """Whether other processes may write to it too."""

    @property
    def replica(self) -> str:
        """A name for this process among those that write to it."""

    async def write(self, operation: Operation[T], *, long: bool = False) -> T:
        """Run `operation` in a savepoint of the next batch; return once that batch is durable.

        One that may touch more than a few hundred rows is `long`: nothing else must wait for it but other writes.

        Raises:
            StoreUnavailable: the batch could not be committed; nothing of the operation was kept.
        """

    async def read(self, operation: Operation[T], *, brief: bool = False) -> T:
        """Run a query that changes nothing, beside the writer.

        One that finds a few rows by an index, however much is stored, is `brief`: it costs less than to hand it to a
        thread.
        """

    async def scrub(self) -> None:
        """Leave no copy of what was deleted before in the files of the database, as far as the database can tell.

        Raises:
            StoreUnavailable: not now; what was deleted may still be there.
        """

    async def close(self) -> None:
        """Finish what is queued, then close."""


class SharedStore(Store, Protocol):
    """A store to which other processes of the same node write too."""

    #: Told of each commit of another process, and after anything that may have hidden one.
    changed: Callable[[], None]
    #: Asked in each batch that is to be signed, after it has its turn: whether this process may still sign.
    may_sign: Operation[None] | None
    #: Told once, where the database has lost what it confirmed: how large the log was.
    went_back: Callable[[int], None]
