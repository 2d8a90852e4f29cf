"""The root of every error that the exchange raises on purpose.

Each layer has one family below `ExchangeError`; each class is one thing that can go wrong.

* `code` is stable: scripts and problem documents rely on it.
* The message is one line, says what happened, and holds no personal data.
* `hint` says what to do next, in one sentence.
"""

from typing import ClassVar


class ExchangeError(Exception):
    """Something went wrong that has a name, a message for a person and a hint."""

    code: ClassVar[str] = "error"
    hint: ClassVar[str] = ""
