"""`exchange`: the one program. Each group of verbs has a module of its own, imported when it is used."""

import importlib
import json
import sys
from typing import Any, Final

import click

from exchange.cli.client import CommandFailed
from exchange.errors import ExchangeError

#: verb -> (module, attribute)
_VERBS: Final = {
    "init": ("exchange.cli.node", "init"),
    "run": ("exchange.cli.node", "run"),
    "card": ("exchange.cli.node", "card"),
    "token": ("exchange.cli.node", "token"),
    "health": ("exchange.cli.node", "health"),
    "rejoin": ("exchange.cli.rejoin", "rejoin"),
    "backup": ("exchange.cli.backups", "backup"),
    "alarms": ("exchange.cli.node", "alarms"),
    "peer": ("exchange.cli.registration", "peer"),
    "directory": ("exchange.cli.directory", "directory"),
    "agency": ("exchange.cli.agencies", "agency"),
    "agency-key": ("exchange.cli.agency_keys", "agency_key"),
    "agency-own": ("exchange.cli.agency_acknowledging", "agency_own"),
    "agency-query": ("exchange.cli.agency_acknowledging", "agency_query"),
    "agency-redirect": ("exchange.cli.agency_acknowledging", "agency_redirect"),
    "agency-open": ("exchange.cli.agency_receiving", "agency_open"),
    "agency-pull": ("exchange.cli.agency_pulling", "agency_pull"),
    "agency-attachment": ("exchange.cli.agency_receiving", "agency_attachment"),
    "agency-serve": ("exchange.cli.agency_receiving", "agency_serve"),
    "route": ("exchange.cli.routing", "route"),
    "store": ("exchange.cli.store", "store"),
    "keys": ("exchange.cli.keys", "keys"),
    "form": ("exchange.cli.forms", "form"),
    "schema": ("exchange.cli.forms", "schema"),
    "send": ("exchange.cli.messages", "send"),
    "agreement": ("exchange.cli.gate", "agreement"),
    "approve": ("exchange.cli.gate", "approve"),
    "approvals": ("exchange.cli.gate", "approvals"),
    "overrides": ("exchange.cli.gate", "overrides"),
    "status": ("exchange.cli.messages", "status"),
    "recall": ("exchange.cli.orders", "recall"),
    "erase": ("exchange.cli.orders", "erase"),
    "orders": ("exchange.cli.orders", "orders"),
    "handover": ("exchange.cli.handovers", "handover"),
    "explain": ("exchange.cli.messages", "explain"),
    "inbox": ("exchange.cli.messages", "inbox"),
    "outbox": ("exchange.cli.messages", "outbox"),
    "attachment": ("exchange.cli.attachments", "attachment"),
    "held": ("exchange.cli.messages", "held"),
    "section": ("exchange.cli.sections", "section"),
    "questions": ("exchange.cli.sections", "questions"),
    "receipt": ("exchange.cli.messages", "receipt"),
    "verify": ("exchange.cli.verify", "verify"),
    "demo": ("exchange.cli.demo", "demo"),
}


_NO_FILE: Final = "Nothing was changed. Look at the path: it counts from where the command is run."


class _Verbs(click.Group):
    def list_commands(self, _: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        module, attribute = _VERBS[name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - the table above
        return command


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="borough-exchange", prog_name="exchange")
def cli() -> None:
    """Hand a person's notification form from one borough to another, signed, sealed and acknowledged."""


def main(arguments: list[str] | None = None) -> None:
    """Run the program; exit codes are in docs/cli.md."""
    wanted = sys.argv[1:] if arguments is None else arguments
    try:
        code: Any = cli.main(wanted, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        if "--json" in wanted and not getattr(error, "told", False):
            more = {"findings": error.findings} if isinstance(error, CommandFailed) and error.findings else {}
            _print_error(getattr(error, "code", "usage"), error.format_message(), getattr(error, "hint", ""), **more)
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("Stopped.", err=True)
        sys.exit(1)
    except OSError as error:
        # A file that a verb was told to read or write; what a node's own files lack has an error of its own.
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        click.echo(f"Error: {reason}", err=True)
        if isinstance(error, FileNotFoundError):
            click.echo(f"       {_NO_FILE}", err=True)
        if "--json" in wanted:
            _print_error("file", reason, _NO_FILE if isinstance(error, FileNotFoundError) else "")
        sys.exit(1)
    except ExchangeError as error:
        click.echo(f"Error: {error}", err=True)
        if error.hint:
            click.echo(f"       {error.hint}", err=True)
        if "--json" in wanted:
            _print_error(error.code, str(error), error.hint)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _print_error(code: str, message: str, hint: str, **more: object) -> None:
    click.echo(json.dumps({"code": code, "message": message, "hint": hint, **more}))


if __name__ == "__main__":
    main()
