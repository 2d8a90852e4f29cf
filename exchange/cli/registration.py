"""Peers by invitation and by pairing: invite, invitations, uninvite, accept, pair.

* A secret is never on the screen and in a file both, and a file that holds one is for its owner alone.
* Words are for a person: a program must say what it was told, and is not asked.
"""

import contextlib
import io
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from exchange.cli.asking import hear, is_no
from exchange.cli.client import TRUST_REFUSED, TRY_LATER, CommandFailed, Node
from exchange.cli.output import config_option, json_option, print_json, print_table
from exchange.cli.peers import peer, show_peer, show_verified
from exchange.crypto.pairing import WORDS

F = TypeVar("F", bound=Callable[..., Any])

_ASK_S: Final = 20
#: Fetching a card and posting to it take half of this each, at most.
_TWO_CALLS_S: Final = 600


def _allowance_options(whose: str) -> Callable[[F], F]:
    def decorated(function: F) -> F:
        networks = click.option(
            "--allow-network", "networks", multiple=True, help=f"A network that the address of {whose} may lie in."
        )
        ca_file = click.option("--ca-file", help=f"Trust only this CA for the TLS certificate of {whose}.")
        return ca_file(networks(function))

    return decorated


def _allowance(ca_file: str | None, networks: tuple[str, ...]) -> dict[str, Any]:
    return {"ca_file": str(Path(ca_file).absolute()) if ca_file else None, "networks": networks}


# Invitations


@peer.command("invite")
@click.option(
    "--expires-hours", type=click.IntRange(1, 720), default=48, show_default=True, help="For how long it can be used."
)
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this new file.")
@click.option("--qr", is_flag=True, help="Show it as a QR code in the terminal.")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a QR code to this new file.")
@_allowance_options("the node that accepts")
@config_option
@json_option
def peer_invite(
    expires_hours: int,
    file: Path | None,
    qr: bool,
    svg: Path | None,
    ca_file: str | None,
    networks: tuple[str, ...],
    config: Path,
    as_json: bool,
) -> None:
    """Invite another borough: whoever accepts first is registered and verified here, and this node there."""
    for path in (file, svg):
        if path is not None and path.exists():
            raise click.UsageError(f"{path} is there already; an invitation goes into a new file")
    node = Node(config)
    body = {"expires_in_hours": expires_hours, **_allowance(ca_file, networks)}
    made = node.request("POST", "/v1/invitations", body)
    invitation, link = made.pop("invitation"), made["link"]
    try:
        _hand_out(invitation, link, file, svg)
    except OSError:
        # What nobody can be given must not be open to anybody.
        node.request("DELETE", f"/v1/invitations/{made['id']}")
        raise
    if qr:
        import segno

        segno.make(link, error="l").terminal(out=sys.stderr if as_json else sys.stdout, border=2, compact=True)
    if file is not None or svg is not None or qr:
        made["link"] = None
    if as_json:
        print_json({**made, "file": str(file) if file else None, "svg": str(svg) if svg else None})
    elif made["link"]:
        click.echo(made["link"])
    _advise(made, file, svg)


def _hand_out(invitation: dict[str, Any], link: str, file: Path | None, svg: Path | None) -> None:
    import json

    from exchange.node.key_backup import write_new

    if file is not None:
        write_new(file, json.dumps(invitation, indent=2).encode() + b"\n")
    if svg is not None:
        import segno

        drawn = io.BytesIO()
        segno.make(link, error="l").save(drawn, kind="svg", scale=8, border=4)
        write_new(svg, drawn.getvalue())


def _advise(made: dict[str, Any], file: Path | None, svg: Path | None) -> None:
    click.echo(
        "This holds a secret: whoever has it first can register as your peer. Give it to the other admin by a way\n"
        "that nobody else can read or change, such as by hand or an encrypted messenger; not by ordinary e-mail.\n"
        "They run:\n"
        "    exchange peer accept INVITATION\n"
        f"It can be used once, until {made['expires_at']}. Then see who has used it: exchange peer invitations\n"
        f"To take it back: exchange peer uninvite {made['id']}",
        err=True,
    )
    written = " and ".join(str(path) for path in (file, svg) if path is not None)
    if written:
        click.echo(f"Delete {written} as soon as it is handed over.", err=True)


@peer.command("invitations")
@config_option
@json_option
def peer_invitations(config: Path, as_json: bool) -> None:
    """The invitations of this node that have not expired, and who has used them."""
    document = Node(config).request("GET", "/v1/invitations")
    if as_json:
        print_json(document)
        return
    rows = [(row["id"], row["by"], row["made_at"], row["expires_at"], row["used_by"]) for row in document["items"]]
    print_table(("id", "made by", "made at", "expires at", "used by"), rows)


@peer.command("uninvite")
@click.argument("invitation_id")
@config_option
@json_option
def peer_uninvite(invitation_id: str, config: Path, as_json: bool) -> None:
    """Withdraw an invitation; whoever has used it stays registered."""
    document = Node(config).request("DELETE", f"/v1/invitations/{invitation_id}")
    if as_json:
        print_json(document)
    else:
        click.echo("Withdrawn.")


@peer.command("accept")
@click.argument("invitation")
@_allowance_options("the node that invites")
@config_option
@json_option
def peer_accept(invitation: str, ca_file: str | None, networks: tuple[str, ...], config: Path, as_json: bool) -> None:
    """Accept INVITATION, a file, a word or - for standard input: both nodes are then registered and verified."""
    body = {"invitation": _read(invitation), **_allowance(ca_file, networks)}
    document = Node(config).request("POST", "/v1/invitations/accept", body, wait_s=_TWO_CALLS_S)
    show_peer(document, as_json)
    if not document["verified_there"]:
        click.echo("At the other borough a second person must verify you: exchange peer verify", err=True)
    if document["trust"] == "verified" and invitation != "-" and not invitation.startswith("exchange-invitation:"):
        click.echo(f"Delete {invitation}: it is of no more use.", err=True)


def _read(invitation: str) -> str:
    """The text of an invitation; what is far too long for one is not read to its end."""
    most = 8192
    if invitation.startswith("exchange-invitation:"):
        return invitation
    if invitation == "-":
        return sys.stdin.read(most)[:4096]
    with Path(invitation).open(errors="replace") as file:
        return file.read(most)[:4096]


# Pairing


@peer.command("pair")
@click.argument("url")
@_allowance_options("the other node")
@click.option("--no-ask", is_flag=True, help="Print the words and end; confirm by running it again with --words.")
@click.option("--words", help="The words that the other admin read out, for a pairing that shows its words already.")
@click.option("--stop", is_flag=True, help="End a pairing that is under way.")
@config_option
@json_option
def peer_pair(
    url: str,
    ca_file: str | None,
    networks: tuple[str, ...],
    no_ask: bool,
    words: str | None,
    stop: bool,
    config: Path,
    as_json: bool,
) -> None:
    """Register the node at URL while you telephone its admin, who runs the same with your URL: compare four words."""
    if no_ask + stop + (words is not None) > 1:
        raise click.UsageError("give one of --no-ask, --words and --stop")
    node = Node(config)
    if stop:
        _stop(node, url, as_json)
        return
    if words is not None:
        _check_words(words)
        found = _under_way(node, url, "words")
        show_verified(_confirm(node, found, {"words": words}), as_json)
        return
    if not no_ask and not sys.stdin.isatty():
        raise click.UsageError("run this in a terminal; or run it with --no-ask, and then with --words")
    started = node.request("POST", "/v1/pairings", {"url": url, **_allowance(ca_file, networks)}, wait_s=_TWO_CALLS_S)
    with _stopped_if_left(node, started):
        found = _until_words(node, started)
        if no_ask:
            if as_json:
                print_json(found)
            else:
                click.echo(" ".join(found["words"]))
            return
        answer = _ask(found, begins=node.request("GET", "/v1/card")["origin"] < found["origin"])
    show_verified(_confirm(node, found, answer), as_json)


def _until_words(node: Node, started: dict[str, Any]) -> dict[str, Any]:
    click.echo(f"{started['url']} says that it is {started['origin']}: {started['name']}, {started['area']}.", err=True)
    click.echo(
        "Waiting for the other side to run the same command:\n"
        f"    exchange peer pair {started['own_url']}\n"
        "Stay on the telephone. Ctrl-C stops.",
        err=True,
    )
    found = started
    while found["state"] == "waiting":
        problem = found["problem"]
        found = node.request("GET", f"/v1/pairings/{started['id']}?timeout_s={_ASK_S}", wait_s=_ASK_S)
        if found["state"] == "waiting":
            more = f" {found['problem']}." if found["problem"] not in (None, problem) else ""
            click.echo(f"Still waiting, until {found['ends_at'][11:16]} UTC.{more}", err=True)
    if found["state"] != "words":
        raise CommandFailed(
            f"no words: {found['reason']}", TRY_LATER, "Start again at both ends at the same time.", "pairing-failed"
        )
    return found


def _ask(found: dict[str, Any], *, begins: bool) -> dict[str, Any]:
    """Show three of the words and have the admin type the fourth: to type is to have listened.

    One side leaves out the first or the second, the other the third or the fourth: so each has it from the other.
    """
    words = list(found["words"])
    place = secrets.choice((0, 1) if begins else (2, 3))
    shown = [".....", *words[place + 1 :]]
    click.echo(
        f"\nThe words for {found['origin']}, {found['name']}:\n\n    {'  '.join([*words[:place], *shown])}\n", err=True
    )
    click.echo(
        "Read yours to the other admin, and have them read theirs to you. They see the word that is left out here,\n"
        "and you see the one that is left out there. All others must be the same at both ends.",
        err=True,
    )
    while True:
        heard = hear(f"Word {place + 1}, as they read it, or n if another word differs").lower()
        if is_no(heard):
            return {"same": False}
        if heard in _words():
            words[place] = heard
            return {"words": " ".join(words)}
        click.echo(_no_word(heard), err=True)


def _words() -> frozenset[str]:
    from mnemonic import Mnemonic

    return frozenset(Mnemonic("english").wordlist)


def _no_word(text: str) -> str:
    return f"'{text}' is not a word of the list; type it again"


def _check_words(text: str) -> None:
    """Refuse what cannot have been read out, before the pairing hears of it: there a wrong word is an alarm."""
    spoken = re.findall(r"[^\s,;.]+", text.lower())
    for word in spoken:
        if word not in _words():
            raise click.UsageError(_no_word(word))
    if len(spoken) != WORDS:
        raise click.UsageError(f"there are {WORDS} words, and you gave {len(spoken)}; type them again")


def _confirm(node: Node, found: dict[str, Any], body: dict[str, Any]) -> Any:
    return node.request("POST", f"/v1/pairings/{found['id']}/confirm", body)


def _under_way(node: Node, url: str, state: str) -> dict[str, Any]:
    for found in node.request("GET", "/v1/pairings")["items"]:
        if found["url"] == url and found["state"] == state:
            return dict(found)
    raise CommandFailed(
        f"no pairing with {url} waits for its words to be confirmed",
        TRUST_REFUSED,
        "Run it with --no-ask first, at the same time as the other admin.",
        "pairing-failed",
    )


def _stop(node: Node, url: str, as_json: bool) -> None:
    for found in node.request("GET", "/v1/pairings")["items"]:
        if found["url"] == url and found["state"] in ("waiting", "words"):
            found = node.request("DELETE", f"/v1/pairings/{found['id']}")
            if as_json:
                print_json(found)
            else:
                click.echo("Stopped.")
            return
    raise CommandFailed(f"no pairing with {url} is under way", 3, code="not-found")


@contextlib.contextmanager
def _stopped_if_left(node: Node, started: dict[str, Any]) -> Iterator[None]:
    """End the pairing where the admin leaves before answering: the next one must not have to wait for it."""
    try:
        yield
    except (KeyboardInterrupt, click.Abort):
        with contextlib.suppress(CommandFailed):
            node.request("DELETE", f"/v1/pairings/{started['id']}")
        raise
