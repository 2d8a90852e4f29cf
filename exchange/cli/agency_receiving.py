"""What an agency does with what arrives: open a file, or run a receiver. These need no node."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exchange.cli.agency_keys import key_passphrase_option, open_keys
from exchange.cli.agency_node import open_node, optional_node_options
from exchange.cli.client import INVALID, TRUST_REFUSED, USAGE, CommandFailed
from exchange.cli.output import check_free, json_option, new_file, print_json

if TYPE_CHECKING:
    import ssl

    from exchange.agency.asking import Node
    from exchange.agency.receiving import Agency, Inbox
    from exchange.agency.senders import KnownSenders

_Existing = click.Path(path_type=Path, dir_okay=False, exists=True)
_Directory = click.Path(path_type=Path, file_okay=False, exists=True)

_key_option = click.option("--key", "key_file", type=_Existing, required=True, help="The agency's key file.")
_cards_option = click.option(
    "--cards", type=_Directory, help="A directory with the cards (*.json) of boroughs whose fingerprints you compared."
)


def known_senders(cards: Path | None) -> KnownSenders:
    from exchange.agency.senders import KnownSenders
    from exchange.schema.errors import CardInvalid

    try:
        return KnownSenders.in_directory(cards) if cards is not None else KnownSenders()
    except CardInvalid as error:
        raise CommandFailed(f"{cards}: {error}", INVALID, error.hint, error.code) from None


@click.command("agency-open")
@click.argument("file", type=_Existing)
@_key_option
@click.option("--kind", help="Which agency this is, as in the catalogue. [default: whichever the event is for]")
@_cards_option
@key_passphrase_option
@json_option
def agency_open(
    file: Path, key_file: Path, kind: str | None, cards: Path | None, passphrase_file: Path | None, as_json: bool
) -> None:
    """Open the sealed section in FILE, the body of a webhook, and check who sent it."""
    from exchange.agency.errors import AgencyError, SenderChanged
    from exchange.agency.event import MOST_BYTES, SectionEvent, parse_event
    from exchange.agency.opening import open_section_event

    with file.open("rb") as opened_file:
        data = opened_file.read(MOST_BYTES + 1)
    senders = known_senders(cards)
    keys, _ = open_keys(key_file, passphrase_file)
    try:
        event = parse_event(data)
        if not isinstance(event, SectionEvent):
            raise CommandFailed(f"{file}: that is not a section", INVALID)
        opened = open_section_event(event, keys, senders, kind)
    except AgencyError as error:
        code = TRUST_REFUSED if isinstance(error, SenderChanged) else INVALID
        raise CommandFailed(f"{file}: {error}", code, error.hint, error.code) from None
    document = {
        "message_id": opened.message_id,
        "section": opened.section,
        "kind": opened.kind,
        "sender": opened.sender,
        "sender_area": opened.sender_area,
        "fingerprint": opened.fingerprint,
        "known": opened.known,
        "created_at": opened.created_at,
        "urgent": opened.urgent,
        "key_id": opened.key_id.hex(),
        "alone": opened.alone,
        "others": list(opened.others),
        "content": opened.content,
    }
    print_json(document if as_json else opened.content)
    if as_json:
        return
    known = "known here" if opened.known else "not known here: compare its fingerprint, or name --cards"
    click.echo(f"Section {opened.section} of message {opened.message_id}, from {opened.sender} ({known}).", err=True)
    if opened.alone:
        click.echo("It was sealed to your key alone.", err=True)
    else:
        others = ", ".join(opened.others)
        click.echo(
            f"It is for {others} too. The borough's node opens it for each of them without a key of its own.", err=True
        )


@click.command("agency-attachment")
@click.argument("event", type=_Existing)
@click.argument("number", type=int)
@click.argument("sealed", type=_Existing)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_key_option
@_cards_option
@key_passphrase_option
@json_option
def agency_attachment(
    event: Path,
    number: int,
    sealed: Path,
    file: Path,
    key_file: Path,
    cards: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Open attachment NUMBER of the sealed section in EVENT: SEALED is what the node gave, FILE is written anew."""
    from exchange.agency.attachment import open_sealed_attachment
    from exchange.agency.errors import AgencyError
    from exchange.agency.event import MOST_BYTES, SectionEvent, parse_event
    from exchange.agency.opening import open_section_event

    check_free(file)
    with event.open("rb") as opened_file:
        data = opened_file.read(MOST_BYTES + 1)
    senders = known_senders(cards)
    keys, _ = open_keys(key_file, passphrase_file)
    try:
        parsed = parse_event(data)
        if not isinstance(parsed, SectionEvent):
            raise CommandFailed(f"{event}: that is not a section", INVALID)
        opened = open_section_event(parsed, keys, senders)
        with sealed.open("rb") as chunks, new_file(file) as written:
            described = open_sealed_attachment(opened, number, chunks, written.write)
    except AgencyError as error:
        raise CommandFailed(f"{sealed}: {error}; nothing was written", INVALID, error.hint, error.code) from None
    if as_json:
        told = {"title": described.title, "file_name": described.file_name, "media_type": described.media_type}
        print_json({"file": str(file), "size_bytes": described.size_bytes, **told})
    else:
        click.echo(f"Wrote {described.size_bytes} bytes to {file}: {described.title} ({described.file_name})")


@click.command("agency-serve")
@_key_option
@click.option("--borough", required=True, help="The origin of the agency's own borough's node.")
@click.option("--kind", required=True, help="Which agency this is, as in the catalogue.")
@click.option(
    "--secret-file", type=_Existing, required=True, help="A file with the webhook secret; several, one a line."
)
@click.option("--store", type=_Directory, required=True, help="The directory in which sections are kept, sealed.")
@_cards_option
@click.option("--known-only", is_flag=True, help="Refuse senders of whom there is no card in --cards.")
@click.option("--sealed-only", is_flag=True, help="Refuse sections that the borough's node has opened.")
@click.option("--listen", default="127.0.0.1:8480", show_default=True, help="Where to listen; port 0 takes a free one.")
@click.option("--certificate", type=_Existing, help="The TLS certificate, in PEM; needed beyond loopback.")
@click.option("--private-key", type=_Existing, help="The certificate's key, in PEM.")
@optional_node_options
@key_passphrase_option
@json_option
def agency_serve(
    key_file: Path,
    borough: str,
    kind: str,
    secret_file: Path,
    store: Path,
    cards: Path | None,
    known_only: bool,
    sealed_only: bool,
    listen: str,
    certificate: Path | None,
    private_key: Path | None,
    node_url: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Take webhooks, keep what opens, and show it on a page; until it is told to stop.

    With --node, people own sections on the page, ask about them, and say that they are not theirs.
    """
    from exchange.agency.errors import WebhookRefused
    from exchange.agency.receiving import Agency, Inbox
    from exchange.agency.webhook import parse_webhook_key

    host, port = _address(listen)
    tls = _tls(certificate, private_key)
    if tls is None and not ipaddress.ip_address(host).is_loopback:
        raise CommandFailed(
            f"{host} is not loopback, and there is no certificate",
            USAGE,
            "Give --certificate and --private-key, or listen on 127.0.0.1 behind a proxy that has them.",
        )
    try:
        secrets = [parse_webhook_key(line.strip()) for line in secret_file.read_text().splitlines() if line.strip()]
    except WebhookRefused as error:
        raise CommandFailed(f"{secret_file}: {error}", INVALID, error.hint, error.code) from None
    if not secrets:
        raise CommandFailed(f"{secret_file} is empty", INVALID, "`exchange agency add` prints the secret.")
    senders = known_senders(cards)
    keys, _ = open_keys(key_file, passphrase_file)
    agency = Agency(kind, borough, keys, secrets, senders, sealed_only, known_only)
    node = open_node(node_url, token_file, ca_file) if node_url is not None else None
    asyncio.run(_run(agency, Inbox(store), host, port, tls, as_json, node))


async def _run(
    agency: Agency,
    inbox: Inbox,
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    as_json: bool,
    node: Node | None,
) -> None:
    from exchange.agency.serving import Receiver, serve

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    receiver = Receiver(agency, inbox, node=node)

    def started(at: int) -> None:
        place = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{at}"
        webhook, page = f"{place}/webhook", f"{place}/enter?word={receiver.word}"
        if as_json:
            print_json({"webhook": webhook, "page": page})
        else:
            click.echo(f"Taking webhooks for {agency.kind} at {webhook}. Read what comes at\n{page}", err=True)

    await serve(receiver, host, port, tls, started, stop)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError:
        raise CommandFailed(f"{text!r} is not an address and a port", USAGE, "Such as 127.0.0.1:8480.") from None


def _tls(certificate: Path | None, private_key: Path | None) -> ssl.SSLContext | None:
    import ssl

    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        raise CommandFailed("--certificate and --private-key go together", USAGE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError):
        raise CommandFailed("the certificate and its key cannot be read, or do not fit", INVALID) from None
    return context
