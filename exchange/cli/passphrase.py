"""Ask a person for a passphrase, on a terminal only: a script gives a file."""

import getpass
import sys
from collections.abc import Callable

from exchange.cli.client import USAGE, CommandFailed
from exchange.crypto.secret import Secret


def asker() -> Callable[[str], Secret] | None:
    """Asks for the passphrase of what it is told, where there is somebody to ask."""
    return ask if sys.stdin.isatty() else None


def ask(what: str, option: str = "--passphrase-file") -> Secret:
    """Ask for the passphrase of something; `option` names the file where there is nobody to ask.

    Raises:
        CommandFailed: there is nobody to ask, or they gave none.
    """
    return _ask(f"Passphrase of {what}: ", option)


def ask_new(what: str, option: str) -> Secret:
    """Ask for a new passphrase of something, twice; `option` names the file where there is nobody to ask.

    Raises:
        CommandFailed: there is nobody to ask, they gave none, or two.
    """
    first = _ask(f"New passphrase of {what}: ", option)
    if first != _ask("The same again: ", option):
        raise CommandFailed("the two are not the same; nothing was changed", USAGE, "Try again.")
    return first


def _ask(prompt: str, option: str) -> Secret:
    if not sys.stdin.isatty():
        hint = f"Run this on a terminal, or give the passphrase in a file: {option} FILE"
        raise CommandFailed("there is no terminal to ask for a passphrase at", USAGE, hint)
    try:
        text = getpass.getpass(prompt)
    except EOFError:
        text = ""
    if not text:
        raise CommandFailed("no passphrase was given; nothing was changed", USAGE)
    return Secret(text.encode())
