"""Bytes that must not be printed by accident.

Python cannot promise to wipe memory; these types only keep bytes out of logs, tracebacks and pickles.
"""

import hmac
import os
from typing import NoReturn, TypeVar

S = TypeVar("S", bound="Hidden")


class Hidden:
    """Bytes whose `repr` says nothing."""

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves: for the call that needs them, never for a variable that lives on."""
        return self._value

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and hmac.compare_digest(self._value, other._value)

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
