"""Why a peer stands as it does, in words, and what its admin can do."""

import json
from pathlib import Path
from typing import Any

import click

from exchange.cli.client import FAILURE, CommandFailed

_WHAT = {
    "unverified": "{origin} is not verified: nobody has compared its identity yet. Nothing is sent to it or heard "
    "from it.",
    "confirming": "{origin} was verified by {confirmed_first_by}. A second person must verify it too.",
    "verified": "{origin} is verified: {verified_how}, at {verified_at}.",
    "suspended": "{origin} was suspended here. Nothing is sent to it or heard from it.",
    "blocked": "{origin} is blocked: it shows another identity than the one that was verified, and no proof that the "
    "one passed itself on to the other. Nothing is sent to it or heard from it.",
    "quarantined": "{origin} is quarantined: its log forked. Nothing is sent to it or heard from it.",
    "revoked": "{origin} revoked its identity: its keys are not to be believed any more.",
}

_DO = {
    "unverified": ["Telephone the other borough's admin, then: exchange peer verify {origin}"],
    "confirming": [
        "A second person, from an account or token of their own, telephones them too: exchange peer verify {origin}"
    ],
    "suspended": ["To hear it again: exchange peer verify {origin}"],
    "blocked": [
        "Telephone its admin on a number that you know already. Do not use one from a message that you just got.",
        "If they made their keys anew, compare the new identity: exchange peer verify {origin}",
        "If they did not, somebody stands between you: leave it blocked, and tell them.",
        (
            "Once that is over, compare the fingerprint that was verified before, to hear it again: "
            "exchange peer verify {origin} --fingerprint FINGERPRINT"
        ),
    ],
    "quarantined": [
        "Telephone its admin on a number that you know already, and read out the sizes and roots above.",
        "If their node was restored from an old copy, or ran twice, they see to it that only one copy runs.",
        "Then compare identities: exchange peer verify {origin}",
        "If their keys may be stolen, they publish their revocation (exchange keys revoke) and make a new node.",
        "Then import its new card: exchange peer import FILE",
        "If neither explains it, leave it quarantined. Keep the proof: exchange peer explain {origin} --evidence FILE",
    ],
    "revoked": ["Get the card of its new node, then: exchange peer import FILE"],
    "returned": [
        (
            "It shows a new identity. Telephone its admin on a number that you know already, then: "
            "exchange peer verify {origin}"
        )
    ],
}


def tell(document: dict[str, Any]) -> None:
    """Print what `GET /v1/peers/explain/ORIGIN` answered."""
    trust = document["trust"]
    click.echo(_WHAT[trust].format(**document))
    for fork in document["forks"]:
        click.echo(f"\nSeen at {fork['at']}: {fork['detail']}")
        for name, key in (("verified before", "held"), ("then shown", "shown")):
            if claim := fork.get(key):
                click.echo(f"  {name + ':':17} {claim['size']:>8} statements, root {claim['root'][:30]}...")
    if document["forks"]:
        click.echo("\nEach bears its signature, and no log that only grows holds both. What may have happened:")
        click.echo("  * its node was restored from an old copy, or two copies of it run;")
        click.echo("  * its keys were stolen, and somebody signs in its name;")
        click.echo("  * whoever runs it shows different boroughs different logs.")
    for one in document["compared"]:
        click.echo(f"Its log is the one that {one['with']} has seen: compared at {one['at']}.")
    for one in document["unproven"]:
        click.echo(f"It has not shown yet that its log is the one that {one['with']} has seen, since {one['since']}.")
    if document["waiting"]:
        many = "1 delivery waits" if document["waiting"] == 1 else f"{document['waiting']} deliveries wait"
        click.echo(f"\n{many} for it here. Nothing is lost.")
    if trust == "revoked" and document["candidate"]:
        trust = "returned"
    if steps := _DO.get(trust):
        click.echo("\nWhat to do:")
        for number, step in enumerate(steps, 1):
            click.echo(f"  {number}. {step.format(**document)}")


def write_evidence(document: dict[str, Any], file: Path) -> None:
    """Write the checkpoints that contradict each other, to show to others.

    Raises:
        CommandFailed: there are none, or the file is there already or cannot be written.
    """
    if not document["forks"]:
        raise CommandFailed(f"no fork of {document['origin']} was seen here; nothing was written", FAILURE)
    kept = {key: document[key] for key in ("origin", "fingerprint", "signing_keys", "forks")}
    try:
        with file.open("x", encoding="utf-8") as out:
            json.dump(kept, out, indent=2)
            out.write("\n")
    except OSError as error:
        raise CommandFailed(f"cannot write {file}: {error.strerror}; nothing was written", FAILURE) from None
