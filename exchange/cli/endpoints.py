"""Agencies' endpoints: show, pause, resume, enable, settings, secrets, attempts, replay."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from exchange.cli.agency_sealing import own_key
from exchange.cli.client import USAGE, CommandFailed, Node
from exchange.cli.output import config_option, json_option, print_json, print_table

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def place_of(document: dict[str, Any]) -> str:
    """Where an agency gets its sections."""
    return str(document["url"] or document["folder"] or "fetches")


def told_of(document: dict[str, Any]) -> list[tuple[str, object]]:
    """What a person wants to know of an agency, line by line."""
    lines: list[tuple[str, object]] = [
        ("name", document["name"]),
        ("where", place_of(document)),
        ("last asked", document["asked_at"]),
        ("state", document["state"] + (f": {document['reason']}" if document["reason"] else "")),
        ("breaker", document["breaker"]),
        ("failing since", document["failing_since"]),
        ("last error", document["last_error"]),
        ("own key", own_key(document) or None),
        ("public key", document["public_key"]),
        ("secret", document["secret_id"]),
    ]
    if document["old_secret_id"]:
        proof = f"proven at {document['proven_at']}" if document["proven_at"] else "the new one is not proven yet"
        lines += [
            ("old secret", f"{document['old_secret_id']} signs too until {document['overlap_until']}"),
            ("rotation", f"{document['rotation']}: {proof}"),
        ]
    settings = ("timeout_s", "retry_s", "certificate", "proxy", "rate_per_minute")
    lines += [(name, document[name]) for name in settings if document[name] is not None]
    lines += [("links", "go with its sections")] if document["links"] else []
    return [(name, value) for name, value in lines if value is not None]


def _retry(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise CommandFailed("--retry takes waits in seconds, such as 5,60,600", USAGE) from None


def settings_of(
    timeout_s: float | None, retry: str | None, certificate: str | None, proxy: str | None, links: bool | None
) -> dict[str, Any]:
    """The settings that were given, as the node takes them."""
    given = {
        "timeout_s": timeout_s,
        "retry_s": _retry(retry),
        "certificate": str(Path(certificate).absolute()) if certificate else certificate,
        "proxy": proxy,
        "links": links,
    }
    return {name: value for name, value in given.items() if value is not None}


def settings_options(function: Any) -> Any:
    """The options of how an agency is reached."""
    for option in (
        click.option(
            "--links/--no-links", default=None, help="Give it one-time links by which somebody takes a section on."
        ),
        click.option("--proxy", help="An HTTP proxy, http://ADDRESS:PORT; an empty text for none."),
        click.option("--client-cert", "certificate", help="A PEM file with a certificate and its key, to show it."),
        click.option("--retry", help="Waits after each failure in seconds, such as 5,60,600."),
        click.option("--timeout", "timeout_s", type=float, help="Seconds to wait for an answer."),
    ):
        function = option(function)
    return function


def _show(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print_table(("", ""), told_of(document))


@click.command("show")
@click.argument("agency_id")
@config_option
@json_option
def agency_show(agency_id: str, config: Path, as_json: bool) -> None:
    """How an agency's endpoint stands, and the public key that signs its webhooks."""
    _show(Node(config).request("GET", f"/v1/agencies/{agency_id}"), as_json=as_json)


@click.command("set")
@click.argument("agency_id")
@settings_options
@click.option("--default", "defaults", multiple=True, type=click.Choice(["timeout", "retry", "client-cert", "proxy"]))
@config_option
@json_option
def agency_set(
    agency_id: str,
    timeout_s: float | None,
    retry: str | None,
    certificate: str | None,
    proxy: str | None,
    links: bool | None,
    defaults: tuple[str, ...],
    config: Path,
    as_json: bool,
) -> None:
    """Change how an agency is reached; --default takes back what was set."""
    names = {"timeout": "timeout_s", "retry": "retry_s", "client-cert": "certificate", "proxy": "proxy"}
    body = {**settings_of(timeout_s, retry, certificate, proxy, links), **{names[name]: None for name in defaults}}
    _show(Node(config).request("POST", f"/v1/agencies/{agency_id}/settings", body), as_json=as_json)


@click.command("pause")
@click.argument("agency_id")
@click.option("--reason", default="", help="Shown with what is held.")
@config_option
@json_option
def agency_pause(agency_id: str, reason: str, config: Path, as_json: bool) -> None:
    """Hold everything for an agency until it is resumed."""
    document = Node(config).request("POST", f"/v1/agencies/{agency_id}/pause", {"reason": reason})
    if as_json:
        print_json(document)
    else:
        click.echo(f"Paused {agency_id}: {document['held']} deliveries are held, and so is what comes.")


def _active(agency_id: str, verb: str, config: Path, *, as_json: bool) -> None:
    document = Node(config).request("POST", f"/v1/agencies/{agency_id}/{verb}")
    if as_json:
        print_json(document)
    else:
        click.echo(f"{agency_id} is active: {document['released']} deliveries go on.")


@click.command("resume")
@click.argument("agency_id")
@config_option
@json_option
def agency_resume(agency_id: str, config: Path, as_json: bool) -> None:
    """End a pause: what is held goes on."""
    _active(agency_id, "resume", config, as_json=as_json)


@click.command("enable")
@click.argument("agency_id")
@config_option
@json_option
def agency_enable(agency_id: str, config: Path, as_json: bool) -> None:
    """Make an agency that was disabled active again: what is held goes on."""
    _active(agency_id, "enable", config, as_json=as_json)


@click.command("rotate-secret")
@click.argument("agency_id")
@click.option("--overlap-hours", type=float, default=24.0, show_default=True, help="How long the old one signs too.")
@click.option("--at-once", is_flag=True, help="End the old secret now: until it has switched, the agency refuses all.")
@config_option
@json_option
def agency_rotate(agency_id: str, overlap_hours: float, at_once: bool, config: Path, as_json: bool) -> None:
    """Make a new webhook secret for an agency, shown once."""
    body = {"overlap_hours": 0.0 if at_once else overlap_hours}
    document = Node(config).request("POST", f"/v1/agencies/{agency_id}/secret", body)
    if as_json:
        print_json(document)
        return
    click.echo("Give the agency its new webhook secret and the secret's name; the secret is not shown again:")
    click.echo(document["secret"])
    click.echo(document["secret_id"])
    if document["old_secret_id"]:
        click.echo(
            f"The old one signs too until {document['overlap_until']}, and until the new one is proven.", err=True
        )


@click.command("confirm-secret")
@click.argument("agency_id")
@click.argument("secret_id")
@config_option
@json_option
def agency_confirm(agency_id: str, secret_id: str, config: Path, as_json: bool) -> None:
    """Say for an agency by which secret it verifies, as its technician told you."""
    body = {"secret_id": secret_id}
    _show(Node(config).request("POST", f"/v1/agencies/{agency_id}/secret/confirm", body), as_json=as_json)


def since_when(text: str, now: datetime) -> str:
    """A time as the API takes it: ISO 8601 with its zone, or so long ago (90m, 6h, 2d).

    Raises:
        CommandFailed: it is neither.
    """
    try:
        if text[-1:] in _UNITS and text[:-1].isascii() and text[:-1].isdigit():
            return (now - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})).isoformat()
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        at = None
    if at is None or at.tzinfo is None:
        hint = "Such as 6h, 2d or 2026-11-23T16:00:00Z; a time needs its zone."
        raise CommandFailed(f"{text!r} is not a time", USAGE, hint) from None
    return at.isoformat()


@click.command("replay")
@click.argument("agency_id")
@click.option("--since", help="What it accepted since then: a time with its zone, or 90m, 6h, 2d.")
@click.option("--message", "message_id", help="What it accepted of one message.")
@click.option("--dry-run", is_flag=True, help="Only count what would be sent.")
@config_option
@json_option
def agency_replay(
    agency_id: str, since: str | None, message_id: str | None, dry_run: bool, config: Path, as_json: bool
) -> None:
    """Send an agency again what it accepted before, under the same ids."""
    if (since is None) == (message_id is None):
        raise CommandFailed("give either --since or --message", USAGE)
    body: dict[str, Any] = {"dry_run": dry_run}
    if since is not None:
        body["since"] = since_when(since, datetime.now(UTC))
    if message_id is not None:
        body["message_id"] = message_id
    document = Node(config).request("POST", f"/v1/agencies/{agency_id}/replay", body)
    if as_json:
        print_json(document)
        return
    verb = "Would send" if dry_run else "Sending"
    click.echo(f"{verb} {document['sections']} sections of {document['messages']} messages again.")
    if document["erased"]:
        click.echo(f"{document['erased']} messages were erased, and are not sent.", err=True)
    if document["waiting"]:
        click.echo(f"{document['waiting']} messages wait to be sent again already.", err=True)


@click.command("attempts")
@click.argument("message_id")
@click.option("--agency", "name", help="Only those to the agency of that name.")
@config_option
@json_option
def agency_attempts(message_id: str, name: str | None, config: Path, as_json: bool) -> None:
    """Each request to an agency about a message, and what was answered."""
    document = Node(config).request("GET", f"/v1/messages/{message_id}/attempts")
    document["items"] = [item for item in document["items"] if name in (None, item["agency"])]
    if as_json:
        print_json(document)
        return
    rows = [
        (
            item["at"],
            item["agency"],
            item["section"],
            "replay" if item["replay"] else "",
            item["status"],
            item["duration_ms"],
            item["code"] or item["error"],
        )
        for item in document["items"]
    ]
    print_table(("at", "agency", "section", "", "status", "ms", "why not"), rows)


COMMANDS = (
    agency_show,
    agency_set,
    agency_pause,
    agency_resume,
    agency_enable,
    agency_rotate,
    agency_confirm,
    agency_replay,
    agency_attempts,
)
