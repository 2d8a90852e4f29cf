"""The story of a stolen key: what both boroughs see, and the way out."""

import contextlib
import re
import shutil
from pathlib import Path
from typing import Any

from exchange.cli.boroughs import ENFIELD, HACKNEY, Borough, agree, free_port, register, start_node, stop
from exchange.cli.client import CommandFailed, Node
from exchange.cli.demo_story import Story, events_of, first, with_words

_THIEF = Borough("thief", HACKNEY.area, HACKNEY.name)
_NEW = Borough("hackney-new", HACKNEY.area, HACKNEY.name)


def play(stack: contextlib.ExitStack, story: Story, form: bytes) -> None:
    """Play it; what must come of it is checked in the story."""
    root = story.root
    story.tell(
        "A thief has a copy of Hackney's node: its keys, its database and its passphrase. This shows what Hackney "
        "and Enfield see of that, and what their admins do. All nodes are real and run on this machine."
    )
    story.heading("1. Before the theft")
    hackney, enfield = (start_node(stack, root, borough) for borough in (HACKNEY, ENFIELD))
    register(hackney, enfield)
    (root / "safe").mkdir()
    shutil.move(root / "hackney" / "revocation.json", root / "safe" / "revocation.json")
    for place in ("hackney", "thief", "hackney-new"):
        (root / place).mkdir(exist_ok=True)
        (root / place / "form.json").write_bytes(form)
    story.tell(
        "Hackney and Enfield have verified each other. When Hackney's node was made, its admin put the file "
        "revocation.json into the safe. A form goes:"
    )
    _send(story, "hackney")

    story.heading("2. The theft")
    _copy(root / "hackney", root / "thief", free_port())
    story.tell(
        "Somebody copies the directory of Hackney's node, passphrase and all. Nobody notices. Hackney sends "
        "another form, and everything is as ever:"
    )
    _send(story, "hackney")
    before = _inbox(enfield)
    story.tell("Now the thief starts a node on the copy, and sends Enfield a form in Hackney's name:")
    thief = start_node(stack, root, _THIEF)
    typed = story.type("thief", "send", "form.json", "--to", ENFIELD.area, shown=first(1))
    false = _id_of(typed.output)
    story.until("Enfield sees that the log forked", lambda: _trust(enfield) == "quarantined")
    story.tell(
        "His log lacks what Hackney signed after the theft, so it contradicts what Enfield has seen. Enfield's node "
        "refuses it, stops listening to Hackney and raises an alarm. Enfield's admin looks:"
    )
    story.type("enfield", "alarms")
    story.type("enfield", "peer", "explain", HACKNEY.origin)
    alarms = events_of(enfield.request("GET", "/v1/alarms")["items"], "fork")
    story.check(
        "thief-found",
        len(alarms) == 1 and _inbox(enfield) == before,
        "The thief was found at his first message, and it went to nobody.",
        trust=_trust(enfield),
        alarms=[alarm["kind"] for alarm in alarms],
        routed=false in _inbox(enfield),
    )

    story.heading("3. Nothing is lost")
    story.tell("Hackney's practitioners know nothing of it yet. What they send waits at their own node:")
    typed = story.type("hackney", "send", "form.json", "--to", ENFIELD.area, shown=first(1))
    true = _id_of(typed.output)
    story.until("Hackney hears that it is refused", lambda: bool(_status(hackney, true)["last_error"]))
    story.type("hackney", "explain", true)
    story.tell("And Enfield sends Hackney nothing, since nobody knows who would read it:")
    turned = form.replace(HACKNEY.area.encode(), b"?").replace(ENFIELD.area.encode(), HACKNEY.area.encode())
    (root / "enfield" / "form.json").write_bytes(turned.replace(b"?", ENFIELD.area.encode()))
    story.type("enfield", "send", "form.json", "--to", HACKNEY.area, expect=4)
    waits = _status(hackney, true)
    story.check(
        "waits",
        waits["next_attempt_at"] is not None and not any(section["rung"] for section in waits["sections"]),
        "The form waits in Hackney's outbox. Nothing went to Hackney either.",
        last_error=waits["last_error"],
    )

    story.heading("4. The telephone, and the safe")
    story.tell(
        "Enfield's admin telephones Hackney's. Had Hackney restored its node from an old copy, or run it twice, they "
        "would now compare identities again, and `exchange peer verify` would end the matter. But nobody did. So "
        "somebody else has the keys: Hackney fetches the revocation from the safe, and revokes them."
    )
    story.type("hackney", "keys", "revoke", "../safe/revocation.json", "--config", "exchange.toml", "--yes")
    story.type("enfield", "peer", "explain", HACKNEY.origin, shown=first(1))
    story.tell("The thief tries once more:")
    typed = story.type("thief", "send", "form.json", "--to", ENFIELD.area, shown=first(1))
    again = _id_of(typed.output)
    story.until("the thief hears that he is refused", lambda: bool(_status(thief, again)["last_error"]))
    story.type("thief", "status", again, shown=lambda _: "")
    story.check(
        "revoked",
        _trust(enfield) == "revoked" and not {false, again} & set(_inbox(enfield)),
        "Enfield believes nothing that these keys sign any more, whoever has them.",
        trust=_trust(enfield),
    )

    story.heading("5. A new node")
    story.tell(
        "Hackney stops the old node and makes a new one, under the same name, on a machine that it trusts. The old "
        "directory is kept: its inbox and outbox say what arrived, and what did not go."
    )
    url = str(hackney.request("GET", "/v1/card")["url"])
    story.type("hackney", "outbox", shown=first(2))
    stop(hackney.process)
    stop(thief.process)
    (root / "hackney-new" / "form.json").unlink()
    (root / "hackney-new").rmdir()
    story.type(
        "hackney-new",
        *("init", "hackney-new", "--area", HACKNEY.area, "--name", HACKNEY.name),
        *("--origin", HACKNEY.origin, "--listen", url.removeprefix("http://"), "--url", url),
        directory=".",
        shown=first(1),
    )
    (root / "hackney-new" / "form.json").write_bytes(form)
    renewed = start_node(stack, root, _NEW)
    story.tell("Its card goes to Enfield, and Enfield's to it. Nobody believes the new node yet:")
    story.type("hackney-new", "card", "export", "../enfield/hackney.card")
    story.type("enfield", "card", "export", "../hackney-new/enfield.card", shown=lambda _: "")
    story.type("hackney-new", "peer", "import", "enfield.card", shown=with_words("origin", "trust"))
    story.type("enfield", "peer", "import", "hackney.card", shown=with_words("origin", "trust", "now shows"))
    story.tell("The two admins telephone, on numbers that they know already, and read out the number:")
    numbers = [
        story.type(who, "peer", "number", origin).output
        for who, origin in (("hackney-new", ENFIELD.origin), ("enfield", HACKNEY.origin))
    ]
    same = " ".join(numbers[0].split())
    for who, origin in (("hackney-new", ENFIELD.origin), ("enfield", HACKNEY.origin)):
        story.type(who, "peer", "verify", origin, "--number", same, shown=with_words("origin", "trust"))
    story.check(
        "verified-anew",
        numbers[0] == numbers[1] and _trust(enfield) == "verified",
        "The numbers are the same: nobody stands between, and both hear each other again.",
        trust=_trust(enfield),
    )
    agree(renewed, ENFIELD.area)
    story.tell("The form that waited is sent from the new node, under its id, so that it cannot arrive twice:")
    story.type(
        "hackney-new",
        *("send", "form.json", "--to", ENFIELD.area, "--id", true, "--wait", "received"),
        shown=first(1),
    )
    story.type("enfield", "inbox")
    arrived = _inbox(enfield)
    story.check(
        "goes-on",
        true in arrived and set(before) <= set(arrived) and not {false, again} & set(arrived),
        "It arrived, once, with everything that came before the theft, and nothing of the thief's.",
        inbox=len(arrived),
    )


def _send(story: Story, who: str) -> str:
    typed = story.type(who, "send", "form.json", "--to", ENFIELD.area, "--wait", "received", shown=first(1))
    return _id_of(typed.output)


def _id_of(output: str) -> str:
    found = re.match(r"Message ([0-9a-f-]{36}) ", output)
    if found is None:
        raise CommandFailed("`exchange send` did not say which message it sent", 1)
    return found[1]


def _copy(source: Path, target: Path, port: int) -> None:
    """What a thief takes: the whole directory. His node listens elsewhere."""
    shutil.copytree(
        source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock", "*.lock", "node.log", "form.json")
    )
    config = target / "exchange.toml"
    config.write_text(
        re.sub(r'(?m)^address = "127\.0\.0\.1:\d+"$', f'address = "127.0.0.1:{port}"', config.read_text())
    )


def _trust(node: Node) -> str:
    return str(node.request("GET", f"/v1/peers/{HACKNEY.origin}")["trust"])


def _inbox(node: Node) -> list[str]:
    return [str(row["id"]) for row in node.request("GET", "/v1/inbox")["items"]]


def _status(node: Node, message_id: str) -> dict[str, Any]:
    return dict(node.request("GET", f"/v1/messages/{message_id}"))
