"""Peers: import, number, verify, list, show, suspend, remove."""

import io
import json
import secrets
import sys
from pathlib import Path
from typing import Any, Final

import click

from exchange.cli.asking import hear
from exchange.cli.client import INVALID, TRUST_REFUSED, CommandFailed, Node
from exchange.cli.output import config_option, json_option, print_json, print_table, write_file

#: Groups of five digits that the admin must type: 50 bits that nobody can know beforehand.
_ASKED: Final = 3


@click.group()
def peer() -> None:
    """Counterpart boroughs' nodes."""


_ADVICE = {
    "unverified": "Nothing is sent to an unverified peer or heard from it. Telephone the other borough's admin, then: "
    "exchange peer verify {origin}",
    "confirming": "A second person must verify this peer too, from an account or token of their own: "
    "exchange peer verify {origin}",
    "blocked": "The peer shows another identity without proof. Telephone its admin on a number that you know already. "
    "If its keys were made anew, run: exchange peer verify {origin}",
    "quarantined": "The peer's log forked: see `exchange alarms`. Nothing is sent or heard. Telephone its admin; once "
    "you know why: exchange peer verify {origin}",
    "revoked": "The peer revoked this identity. Get its new card, then: exchange peer import FILE",
    "returned": "The peer revoked the identity that it had, and shows a new one. Telephone its admin on a number that "
    "you know already, then: exchange peer verify {origin}",
}


def show_peer(document: dict[str, Any], as_json: bool) -> None:
    """Print a peer, and on standard error what is to be done about it."""
    if as_json:
        print_json(document)
        return
    from exchange.crypto.signing import format_fingerprint

    for key in ("origin", "area", "name", "url", "trust", "confirmed_first_by", "serial", "verified_at", "last_error"):
        if document[key] is not None:
            click.echo(f"{key.replace('_', ' ') + ':':20} {document[key]}")
    click.echo(f"{'fingerprint:':20} {format_fingerprint(document['fingerprint'])}")
    if document["candidate"]:
        click.echo(f"{'now shows:':20} {format_fingerprint(document['candidate'])}")
    if document.get("listed_by"):
        click.echo(f"{'listed by:':20} {document['listed_by']}, with this identity")
    elif document.get("listed_fingerprint"):
        click.echo(f"{'listed otherwise:':20} {format_fingerprint(document['listed_fingerprint'])}")
    for row in document.get("verifications", ()):
        click.echo(f"{'verified:':20} {row['at']} by {row['who']}, {row['how']}, {row['fingerprint'][:16]}...")
    advice = "returned" if document["trust"] == "revoked" and document["candidate"] else document["trust"]
    if advice in _ADVICE:
        click.echo(_ADVICE[advice].format(origin=document["origin"]), err=True)


def show_verified(document: dict[str, Any], as_json: bool) -> None:
    """Print a peer that was verified here; the other end may not have done the same yet."""
    show_peer(document, as_json)
    if document["trust"] == "verified" and not as_json:
        click.echo("It is verified here. Messages go both ways once its admin has done the same.", err=True)


@peer.command("add")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--fingerprint", help="The fingerprint that the other admin told you; verifies the peer if it matches.")
@click.option("--ca-file", help="Trust only this CA for the peer's TLS certificate.")
@click.option("--allow-network", "networks", multiple=True, help="A network that its URL's address may lie in.")
@config_option
@json_option
def peer_add(
    file: Path, fingerprint: str | None, ca_file: str | None, networks: tuple[str, ...], config: Path, as_json: bool
) -> None:
    """Register the peer whose card is in FILE."""
    try:
        card = json.loads(file.read_bytes())
        is_card = isinstance(card, dict) and {"statement", "proof"} <= card.keys()
    except (ValueError, RecursionError):
        is_card = False
    if not is_card:
        raise CommandFailed(f"{file} is not a card", INVALID, "A card comes from: exchange card export FILE")
    ca_path = str(Path(ca_file).absolute()) if ca_file else None
    body = {"card": card, "fingerprint": fingerprint, "ca_file": ca_path, "networks": networks}
    show = show_peer if fingerprint is None else show_verified
    show(Node(config).request("POST", "/v1/peers", body), as_json)


@peer.command("list")
@config_option
@json_option
def peer_list(config: Path, as_json: bool) -> None:
    """All registered peers."""
    document = Node(config).request("GET", "/v1/peers")
    if as_json:
        print_json(document)
        return
    rows = [(row["origin"], row["area"], row["trust"], row["last_error"]) for row in document["items"]]
    print_table(("origin", "area", "trust", "last error"), rows)


@peer.command("show")
@click.argument("origin")
@config_option
@json_option
def peer_show(origin: str, config: Path, as_json: bool) -> None:
    """One peer."""
    show_peer(Node(config).request("GET", f"/v1/peers/{origin}"), as_json)


@peer.command("explain")
@click.argument("origin")
@click.option(
    "--evidence",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the signed checkpoints that contradict each other to this file.",
)
@config_option
@json_option
def peer_explain(origin: str, evidence: Path | None, config: Path, as_json: bool) -> None:
    """Why a peer stands as it does, what was seen of it, and what to do."""
    from exchange.cli.peer_story import tell, write_evidence

    document = Node(config).request("GET", f"/v1/peers/explain/{origin}")
    if evidence is not None:
        write_evidence(document, evidence)
    if as_json:
        print_json(document)
    else:
        tell(document)


peer.add_command(peer_add, "import")


def _lines(number: list[str]) -> str:
    return "\n".join("    " + "  ".join(number[start : start + 4]) for start in range(0, len(number), 4))


@peer.command("number")
@click.argument("origin")
@click.option("--qr", is_flag=True, help="Show it as a QR code in the terminal.")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a QR code to this new file.")
@config_option
@json_option
def peer_number(origin: str, qr: bool, svg: Path | None, config: Path, as_json: bool) -> None:
    """The number that both admins compare: the same at both ends if nobody stands between."""
    document = Node(config).request("GET", f"/v1/peers/number/{origin}")
    if qr or svg is not None:
        import segno

        code = segno.make("".join(document["number"]), error="m")
        if svg is not None:
            drawn = io.BytesIO()
            code.save(drawn, kind="svg", scale=8, border=4)
            write_file(svg, drawn.getvalue())
        if qr:
            code.terminal(out=sys.stderr if as_json else sys.stdout, border=2)
    if as_json:
        print_json(document)
    else:
        click.echo(_lines(document["number"]))


@peer.command("verify")
@click.argument("origin")
@click.option("--number", help="The number that the other admin reads out, or that you scanned at their screen.")
@click.option("--fingerprint", help="The fingerprint that the other admin told you.")
@config_option
@json_option
def peer_verify(origin: str, number: str | None, fingerprint: str | None, config: Path, as_json: bool) -> None:
    """Trust a peer after comparing its identity out of band; asks for parts of the number where none is given."""
    node = Node(config)
    if number is None and fingerprint is None:
        number = _ask(node, origin)
    body = {"number": number, "fingerprint": fingerprint}
    show_verified(node.request("POST", f"/v1/peers/verify/{origin}", body), as_json)


def _ask(node: Node, origin: str) -> str:
    """Show the number and have the admin type what the other one reads: to type is to have listened."""
    if not sys.stdin.isatty():
        raise click.UsageError("give --number or --fingerprint, or run this in a terminal")
    document = node.request("GET", f"/v1/peers/number/{origin}")
    groups = document["number"]
    if document["listed_by"]:
        click.echo(f"The directory {document['listed_by']} lists the same identity. Compare all the same:", err=True)
    elif document["listed_fingerprint"]:
        click.echo("The directory lists ANOTHER identity of this node. Find out why before you go on.", err=True)
    places = sorted(secrets.SystemRandom().sample(range(len(groups)), _ASKED))
    hidden = ["....." if place in places else group for place, group in enumerate(groups)]
    click.echo(f"Telephone the admin of {origin}, on a number that you know already. Both run `exchange peer number`.")
    click.echo("Their number must be this, and you must hear the groups that are left out:\n", err=True)
    click.echo(_lines(hidden), err=True)
    for place in places:
        heard = hear(f"Group {place + 1}, as they read it")
        if heard != groups[place]:
            raise CommandFailed(
                f"that is not group {place + 1} of the number; {origin} was not verified",
                TRUST_REFUSED,
                "If you misheard or mistyped, run it again. If you heard it rightly, somebody may stand between you: "
                "do not go on, and tell your security lead.",
                "fingerprint-mismatch",
            )
    return "".join(groups)


@peer.command("suspend")
@click.argument("origin")
@config_option
@json_option
def peer_suspend(origin: str, config: Path, as_json: bool) -> None:
    """Send a peer nothing and hear nothing of it, until it is verified again."""
    show_peer(Node(config).request("POST", f"/v1/peers/suspend/{origin}"), as_json)


@peer.command("remove")
@click.argument("origin")
@config_option
@json_option
def peer_remove(origin: str, config: Path, as_json: bool) -> None:
    """Forget a peer that nothing waits for."""
    document = Node(config).request("DELETE", f"/v1/peers/{origin}")
    if as_json:
        print_json(document)
    else:
        click.echo(f"Removed {origin}.")
        click.echo(
            "It may still have this node as verified: tell its admin. To have it back: exchange peer add CARDFILE,\n"
            f"then exchange peer verify {origin}",
            err=True,
        )
