"""Bytes that must not be printed by accident, and can be overwritten when they are not needed any more.

* These types keep bytes out of logs, tracebacks and pickles.
* To wipe is a best effort. Python and the libraries below it copy bytes as they like and overwrite no copy; what is
  wiped here is the one object that is known. On interpreters other than CPython not even that.
"""

import ctypes
import hmac
import os
import sys
from typing import Final, NoReturn, TypeVar

S = TypeVar("S", bound="Hidden")

_HEADER_BYTES: Final = bytes.__basicsize__ - 1


def wipe(value: bytes | bytearray) -> None:
    """Overwrite bytes where they lie, as far as this interpreter lets us.

    Only for bytes that nobody else needs: Python takes `bytes` for unchangeable, and shares them freely.
    """
    if isinstance(value, bytearray):
        value[:] = bytes(len(value))
    elif len(value) > 1 and sys.implementation.name == "cpython":
        # Shorter ones are shared by the whole interpreter.
        ctypes.memset(id(value) + _HEADER_BYTES, 0, len(value))


class Hidden:
    """Bytes whose `repr` says nothing."""

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: bytes) -> None:
        """Take bytes over: who wipes this wipes them."""
        self._value: bytes | None = value

    def reveal(self) -> bytes:
        """The bytes themselves: for the call that needs them, never for a variable that lives on."""
        if self._value is None:
            raise RuntimeError(f"this {type(self).__name__} was wiped")
        return self._value

    def wipe(self) -> None:
        """Overwrite the bytes, as well as Python can; this is of no use any more."""
        if self._value is not None:
            wipe(self._value)
            self._value = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and hmac.compare_digest(self.reveal(), other.reveal())

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is not to be pickled")


class Secret(Hidden):
    """Key material."""

    @classmethod
    def random(cls: type[S], size_bytes: int = 32) -> S:
        """Fresh key material from the operating system."""
        return cls(os.urandom(size_bytes))


class Plaintext(Hidden):
    """Content of a form."""
