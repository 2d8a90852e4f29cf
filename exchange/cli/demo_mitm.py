"""The story of a man in the middle when two boroughs register each other: the numbers differ, and nothing is sent."""

import base64
import contextlib
import json
import shutil
import subprocess
import sys
import threading
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from exchange.cli.boroughs import ENFIELD, HACKNEY, Borough, agree, free_port, make_node, start_node, stop
from exchange.cli.client import TRUST_REFUSED, Node
from exchange.cli.demo_story import Story, first, with_words

#: How an envelope begins; all that follows is sealed.
_ENVELOPE = b"exchange-envelope/1\n"
_FALSE = {
    HACKNEY: Borough("mallory-as-hackney", HACKNEY.area, HACKNEY.name),
    ENFIELD: Borough("mallory-as-enfield", ENFIELD.area, ENFIELD.name),
}


@dataclass
class _Mallory:
    """The man in the middle: a process that answers at the URLs of both nodes."""

    process: "subprocess.Popen[str]"
    urls: list[str]
    seen: list[dict[str, Any]] = field(default_factory=list)
    told: threading.Event = field(default_factory=threading.Event)

    def behave(self, targets: list[str], cards: list[Path | None]) -> None:
        """Pass on to the targets, and hand out cards of one's own where there are some."""
        wanted = [
            {"target": target, "card": str(card) if card else None} for target, card in zip(targets, cards, strict=True)
        ]
        self.told.clear()
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        self.told.wait(10)

    @property
    def envelopes(self) -> list[bytes]:
        """What was posted through his hands to where envelopes go."""
        return [base64.b64decode(line["body"]) for line in self.seen if line["path"] == "/v1/envelopes"]


def play(stack: contextlib.ExitStack, story: Story, form: bytes) -> None:
    """Play it; what must come of it is checked in the story."""
    root = story.root
    story.tell(
        "Hackney and Enfield want to register each other. Mallory stands on the line between them. He answers at the "
        "address of each, and shows keys of his own. This shows what the admins see. All nodes are real and run on "
        "this machine."
    )
    mallory = _start(stack)
    ports = [free_port(), free_port()]
    targets = [f"http://127.0.0.1:{port}" for port in ports]
    nodes = {}
    for borough, url, port in zip((HACKNEY, ENFIELD), mallory.urls, ports, strict=True):
        make_node(root / borough.slug, borough, url=url, port=port)
        nodes[borough] = start_node(stack, root, borough)
    cards = [_false_card(stack, root, borough, url) for borough, url in zip(_FALSE, mallory.urls, strict=True)]
    mallory.behave(targets, list(cards))
    hackney, enfield = nodes[HACKNEY], nodes[ENFIELD]
    (root / "hackney" / "form.json").write_bytes(form)

    story.heading("1. The cards")
    story.tell(
        "Each admin downloads the other's card from the other node's address. Both get one of Mallory's. It looks "
        "right: the name, the area and the address are those of the other borough."
    )
    for here, there, url in ((HACKNEY, ENFIELD, mallory.urls[1]), (ENFIELD, HACKNEY, mallory.urls[0])):
        downloaded = root / here.slug / f"{there.slug}.card"
        with urllib.request.urlopen(f"{url}/v1/card", timeout=30) as answer:  # noqa: S310 - our own process
            downloaded.write_bytes(answer.read())
        story.type(here.slug, "peer", "import", downloaded.name)
    story.check(
        "unverified",
        _trust(hackney, ENFIELD) == _trust(enfield, HACKNEY) == "unverified",
        "A card alone is not believed.",
        hackney_holds=_trust(hackney, ENFIELD),
        enfield_holds=_trust(enfield, HACKNEY),
    )
    story.tell("What somebody sends now is refused, before anything leaves:")
    story.type("hackney", "send", "form.json", "--to", ENFIELD.area, expect=TRUST_REFUSED)

    story.heading("2. The telephone")
    story.tell("The admins telephone, on numbers that they know already. Each has their node show the number:")
    numbers = [
        " ".join(story.type(here.slug, "peer", "number", there.origin).output.split())
        for here, there in ((HACKNEY, ENFIELD), (ENFIELD, HACKNEY))
    ]
    story.tell("They differ. Had Hackney's admin not listened, and entered what Enfield's admin read out:")
    story.type("hackney", "peer", "verify", ENFIELD.origin, "--number", numbers[1], expect=TRUST_REFUSED)
    story.type("enfield", "peer", "verify", HACKNEY.origin, "--number", numbers[0], expect=TRUST_REFUSED)
    story.check(
        "numbers-differ",
        numbers[0] != numbers[1] and _trust(hackney, ENFIELD) == _trust(enfield, HACKNEY) == "unverified",
        "The numbers differ, because each is made of the identities that the two nodes really see. Neither node "
        "verified the other.",
        hackney_reads=numbers[0],
        enfield_reads=numbers[1],
    )
    story.check(
        "nothing-sent",
        not mallory.envelopes,
        "Nothing was sent: no envelope has gone through Mallory's hands.",
        envelopes=len(mallory.envelopes),
    )

    story.heading("3. The true cards")
    story.tell(
        "The admins tell their security leads that somebody stands between them. They exchange their cards another "
        "way, and read out the fingerprints by telephone. Mallory is found out: from now on he passes everything on."
    )
    mallory.behave(targets, [None, None])
    for here, there in ((ENFIELD, HACKNEY), (HACKNEY, ENFIELD)):
        story.type(here.slug, "card", "export", f"../{there.slug}/{here.slug}-true.card")
        shown = story.type(here.slug, "card", "show", shown=_fingerprint_in).output
        fingerprint = "".join(_fingerprint_in(shown).removeprefix("fingerprint:").split())
        story.type(
            there.slug,
            *("peer", "import", f"{here.slug}-true.card", "--fingerprint", fingerprint),
            shown=with_words("origin", "trust"),
        )
    story.check(
        "true-cards-match",
        _trust(hackney, ENFIELD) == _trust(enfield, HACKNEY) == "verified",
        "These fingerprints match. Both nodes have verified the true one.",
        hackney_holds=_trust(hackney, ENFIELD),
        enfield_holds=_trust(enfield, HACKNEY),
    )
    agree(hackney, ENFIELD.area)
    story.tell("He can read nothing, and no more than cut the line. A form goes through his hands:")
    story.type("hackney", "send", "form.json", "--to", ENFIELD.area, "--wait", "received", shown=first(1))
    through = mallory.envelopes
    name = json.loads(form)["subject"]["name"]
    readable = [body for body in through if not body.startswith(_ENVELOPE) or name.encode() in body]
    story.check(
        "sealed",
        len(through) > 0 and not readable and _inbox(enfield) == 1,
        f"It arrived. {len(through)} envelopes went through Mallory's hands, each sealed to the node that it was "
        "for, and padded. He can read none of them.",
        envelopes=len(through),
        readable=len(readable),
        inbox=_inbox(enfield),
    )


def _fingerprint_in(card: str) -> str:
    """The end of what `card show` prints."""
    return "".join(card.partition("fingerprint:")[1:])


def _start(stack: contextlib.ExitStack) -> _Mallory:
    process = subprocess.Popen(
        [sys.executable, "-m", "exchange.cli.demo_proxy"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stack.callback(stop, process)
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    ports = json.loads(process.stdout.readline())["ports"]
    mallory = _Mallory(process, [f"http://127.0.0.1:{port}" for port in ports])
    threading.Thread(target=_collect, args=(process.stdout, mallory), daemon=True).start()
    return mallory


def _collect(stream: IO[str], mallory: _Mallory) -> None:
    for line in stream:
        seen = json.loads(line)
        if seen["path"]:
            mallory.seen.append(seen)
        else:
            mallory.told.set()


def _false_card(stack: contextlib.ExitStack, root: Path, borough: Borough, url: str) -> Path:
    """A card of a borough that Mallory signs himself: a node of his own makes it."""
    false = _FALSE[borough]
    make_node(root / false.slug, borough, url=url)
    node = start_node(stack, root, false)
    card = root / f"{false.slug}.card"
    card.write_text(json.dumps(node.request("GET", "/v1/card")["card"]))
    stop(node.process)
    shutil.rmtree(root / false.slug)
    return card


def _trust(node: Node, other: Borough) -> str:
    return str(node.request("GET", f"/v1/peers/{other.origin}")["trust"])


def _inbox(node: Node) -> int:
    return len(node.request("GET", "/v1/inbox")["items"])
