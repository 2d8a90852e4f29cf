"""Write the table of verbs in docs/cli.md anew from the program itself: `python docs/render_cli.py`."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from exchange.cli.main import cli

PAGE = Path(__file__).with_name("cli.md")
TABLE = re.compile(r"(?<=<!-- verbs -->\n).*?(?=<!-- /verbs -->)", re.DOTALL)
#: They mean the same everywhere; the page explains them once.
EVERYWHERE = {"json", "config"}


def verbs(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every verb below a group, by its full name."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from verbs(command, f"{prefix}{name} ")
        elif command is not None:
            yield f"{prefix}{name}", command


def verb_table(group: click.Group) -> str:
    """A Markdown table: verb with its arguments, what it does, its options, whether it belongs to a node."""
    rows = ["| verb | what it does | options | `--config` |", "|---|---|---|---|"]
    for name, command in verbs(group):
        options = [item for item in command.params if isinstance(item, click.Option)]
        words = " ".join([name, *(_argument(item) for item in command.params if isinstance(item, click.Argument))])
        own = "<br>".join(_option(item) for item in options if not EVERYWHERE & _names(item))
        belongs = "yes" if any("config" in _names(item) for item in options) else ""
        rows.append(f"| `{words}` | {command.help or ''} | {own} | {belongs} |")
    return "\n" + "\n".join(rows) + "\n\n"


def page(text: str, group: click.Group = cli) -> str:
    """The page with its table made current."""
    return TABLE.sub(lambda _: verb_table(group), text)


def _names(option: click.Option) -> set[str]:
    return {name.removeprefix("--") for name in option.opts}


def _argument(argument: click.Argument) -> str:
    name = (argument.name or "").upper()
    return name if argument.required else f"[{name}]"


def _option(option: click.Option) -> str:
    kind = "|".join(option.type.choices) if isinstance(option.type, click.Choice) else (option.name or "").upper()
    words = f"`{option.opts[0]}`" if option.is_flag else f"`{option.opts[0]} {kind.replace('|', ' or ')}`"
    notes = [option.help.rstrip(".")] if option.help else []
    if option.required:
        notes.append("required")
    if option.multiple:
        notes.append("may be given more than once")
    if option.show_default or (isinstance(option.type, click.Choice) and isinstance(option.default, str)):
        notes.append(f"default: {option.default}")
    return f"{words} {'; '.join(notes)}".rstrip()


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
