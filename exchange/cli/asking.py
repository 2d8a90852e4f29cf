"""Ask a person to decide: what was typed before a question was shown answers nothing."""

import sys
import termios
from typing import Final

import click

_NO: Final = frozenset({"n", "no"})


def forget_typed() -> None:
    """Drop what was typed at the terminal and not read yet."""
    if sys.stdin.isatty():
        termios.tcflush(sys.stdin, termios.TCIFLUSH)


def confirm(question: str) -> None:
    """Ask whether to go on.

    Raises:
        click.Abort: the answer is not yes.
    """
    forget_typed()
    click.confirm(question, abort=True, err=True)


def hear(question: str) -> str:
    """Ask for what another person says; it is not empty."""
    forget_typed()
    return str(click.prompt(question, err=True)).strip()


def is_no(text: str) -> bool:
    """Whether a person answered no."""
    return text.lower() in _NO
