"""The root of every error that the exchange raises on purpose.

Each layer has one family below `ExchangeError`; each class is one thing that can go wrong.

* `code` is stable: scripts and problem documents rely on it.
* The message is one line, says what happened, and holds no personal data.
* `hint` says what to do next, in one sentence; a class has one that fits mostly, and who raises may give a better one.
"""

from typing import ClassVar


class ExchangeError(Exception):
    """Something went wrong that has a name, a message for a person and a hint."""

    code: ClassVar[str] = "error"
    hint: str = ""

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint
