"""What can go wrong with the store."""

from typing import ClassVar

from exchange.errors import ExchangeError


class StoreError(ExchangeError):
    """The store could not do what was asked."""

    code: ClassVar[str] = "store"


class StoreUnavailable(StoreError):
    """The database refused or failed; nothing of the operation was kept."""

    code = "store-unavailable"
    hint = "Check the disk's free space and permissions; the node goes on by itself once the store answers."


class StoreInDoubt(StoreUnavailable):
    """The database went away at the one moment at which it alone knows whether it kept something."""

    code = "store-in-doubt"
    hint = "Once the database answers again, look whether it is there before you do it again."


class StoreWentBack(StoreUnavailable):
    """The database server came back without what it had confirmed: to sign on would be a fork in the eyes of peers."""

    code = "store-went-back"
    hint = "A standby took over that had not got everything. Bring the server back that has, or see docs/postgresql.md."


class StoreDamaged(StoreError):
    """The store does not hold what was signed or written: a disk or a copy that went wrong."""

    code = "store-damaged"
    hint = "Nothing was changed. Keep a copy of it for whoever looks into it, and restore the store from its backup."


class StoreMoved(StoreError):
    """The store was moved elsewhere: the node goes on there, and its log would fork if it went on here too."""

    code = "store-moved"
    hint = "Set store.url to where it was moved."


class ValueRefused(StoreError):
    """The database cannot hold a value, such as a text with a NUL in PostgreSQL."""

    code = "value-refused"
    hint = "Take characters that cannot be printed out of what was sent."


class StoreInUse(StoreError):
    """Another process has the store open."""

    code = "store-in-use"
    hint = "Stop the other node that uses this directory, or give this one a directory of its own."


class StoreTooNew(StoreError):
    """The database was written by a newer version of the program."""

    code = "store-too-new"
    hint = "Install the version that last ran on this directory, or a newer one; nothing was changed."


class Conflict(StoreError):
    """The same message id arrived with another content."""

    code = "conflict"
    hint = "Tell the sending borough: its node used one message id for two messages."


class NotFound(StoreError):
    """Nothing with that id is in the store."""

    code = "not-found"
    hint = "Check the id; `exchange outbox` and `exchange inbox` list what is there."


class AlreadyThere(StoreError):
    """Something with that id is in the store already."""

    code = "already-there"
    hint = "Remove the present one first."
