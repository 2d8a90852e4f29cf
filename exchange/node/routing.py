"""Routing: give each section of a message that arrived to a local agency, for each kind that reads it, or hold it.

* `exchange.handover.routing` decides; this finds what it asks, and keeps what it says in the same transaction.
* What is given to an agency waits in the agency's lane; what is given to none, in the lane `route:KIND`.
* A section that an agency has accepted stays with it, until somebody gives it to another.
* What rules ask of a message stands in its sections, and nowhere else: the node opens them again where it must.
"""

from collections.abc import Collection, Sequence

from exchange.crypto.names import LeafHash
from exchange.crypto.statement import parse_statement
from exchange.handover.routing import Facts, decide
from exchange.node.agency_keys import sealed_kinds
from exchange.node.agency_standing import held_because, is_available
from exchange.node.errors import RequestInvalid
from exchange.node.peering import RELEASED_FOR_MS
from exchange.node.receipts import tell
from exchange.node.services import Services, milliseconds
from exchange.schema.agency_names import kind_of
from exchange.schema.wire import Manifest, Rung, decode_wire, manifest_decoder
from exchange.store.agencies import standing_agencies
from exchange.store.errors import NotFound
from exchange.store.messages import MessageRow, add_event, give_sections, placements_of
from exchange.store.outbox import ROUTE, WEBHOOK, enqueue, new_delivery
from exchange.store.transaction import Transaction

Pair = tuple[str, str]


async def route(
    services: Services,
    tx: Transaction,
    message: MessageRow,
    manifest: Manifest,
    facts: Facts,
    *,
    only: Collection[Pair] | None = None,
    since_ms: int | None = None,
    deadline_ms: int | None = None,
) -> set[str]:
    """Give sections to agencies, or hold them: all of a message, or `only` some; return the lanes to wake.

    What has waited since a time, up to another, goes on so.
    """
    now_ms = services.now_ms()
    agencies = {agency.name: agency for agency in await standing_agencies(tx)}
    here = {name: is_available(agency) for name, agency in agencies.items()}
    rules = services.configuration.tables.routing
    given: list[tuple[str, str, str]] = []
    reasons: dict[str, dict[str, None]] = {}
    for entry in manifest.sections:
        readers = services.catalogue.allowed(entry.name).intersection(entry.readers)
        for kind in entry.readers:
            if only is not None and (entry.name, kind) not in only:
                continue
            choice = decide(rules, facts, entry.name, kind, readers, here)
            if choice.agency is not None:
                given.append((entry.name, kind, choice.agency))
            else:
                reasons.setdefault(kind, {})[choice.held or ""] = None
    names = dict.fromkeys(name for _, _, name in given)
    waits = {name: held_because(agencies[name]) for name in names}
    held = {kind: ", ".join(found) for kind, found in reasons.items()}

    def delivery(lane: str, what: str, agency: str, why: str | None) -> dict[str, object]:
        return new_delivery(
            lane,
            what,
            now_ms=since_ms or now_ms,
            deadline_ms=deadline_ms or milliseconds(manifest.expires_at),
            urgent=manifest.urgent,
            message=message.number,
            agency=agency,
            held=why,
        )

    await enqueue(
        tx,
        [
            *(delivery(f"agency:{name}", WEBHOOK, name, waits[name]) for name in names),
            *(delivery(f"route:{kind}", ROUTE, kind, why) for kind, why in held.items()),
        ],
    )
    if held:
        await add_event(tx, message.number, "held", now_ms, detail=", ".join(dict.fromkeys(held.values())))
    for name, why in waits.items():
        if why is not None:
            await add_event(tx, message.number, "held", now_ms, agency=name, detail=why)
    if not given:
        return set()
    known: set[Pair] = set()
    if only is not None:
        known = {(row.section, row.agency) for row in await placements_of(tx, message.number) if row.rung != "received"}
    return {
        *await _keep_given(services, tx, message, manifest, given, known),
        *(f"agency:{name}" for name, why in waits.items() if why is None),
    }


async def _keep_given(
    services: Services,
    tx: Transaction,
    message: MessageRow,
    manifest: Manifest,
    given: Sequence[tuple[str, str, str]],
    known: Collection[Pair],
) -> set[str]:
    """Note which agency has which section, and sign it for the sender where it is not `known` there; lanes to wake."""
    now_ms = services.now_ms()
    await give_sections(tx, message.number, given, now_ms)
    services.counters.add("sections_routed", len(given))
    by_name: dict[str, list[str]] = {}
    for section, kind, name in given:
        if name != kind:
            by_name.setdefault(name, []).append(section)
    for name, sections in by_name.items():
        await add_event(tx, message.number, "given", now_ms, agency=name, detail=", ".join(dict.fromkeys(sections)))
    fresh = [(section, kind) for section, kind, _ in given if (section, kind) not in known]
    services.counters.add("sections_rerouted", len(given) - len(fresh))
    if not fresh:
        return set()
    leaf = LeafHash(message.leaf_hash)
    await tell(services, tx, message.peer, manifest, leaf, message.number, Rung.ROUTED, fresh)
    return {f"peer:{message.peer}"}


async def give(services: Services, tx: Transaction, message: MessageRow, section: str, kind: str, name: str) -> str:
    """Give a section, which some agency has for the readers of `kind`, to the agency `name` instead; return its lane.

    It begins anew there: it is `routed`, has no holder, and is delivered under an id of its own. No receipt is signed
    for that; what the agency does with it is told as usual.

    Raises:
        NotFound: there is no such agency, or the message is not one that arrived with such a section.
        RequestInvalid: the agency has it already, may not read it, or could not open it.
    """
    manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
    entry = next((entry for entry in manifest.sections if entry.name == section and kind in entry.readers), None)
    if entry is None or message.received_position is None:
        raise NotFound(f"message {manifest.message_id} has no section {section} here for agencies of kind {kind}")
    agencies = {agency.name: agency for agency in await standing_agencies(tx)}
    if name not in agencies:
        raise NotFound(f"no agency {name} is registered", hint="`exchange agency list` lists those that are.")
    if kind_of(name) not in services.catalogue.allowed(section).intersection(entry.readers):
        raise RequestInvalid(
            f"agencies of kind {kind_of(name)} may not read section {section}",
            hint="Only the sender can change who reads a section: ask the borough that sent it.",
        )
    sealed = await sealed_kinds(services, tx, manifest)
    if sealed.issuperset(entry.readers) and name not in sealed:
        raise RequestInvalid(
            f"section {section} is sealed, and agency {name} has no key that opens it",
            hint="The agency that has the key can open it, and nobody else.",
        )
    present = [row for row in await placements_of(tx, message.number) if (row.section, row.agency) == (section, kind)]
    if any(row.given_to == name for row in present):
        raise RequestInvalid(f"agency {name} has section {section} already")
    now_ms = services.now_ms()
    lane, why = f"agency:{name}", held_because(agencies[name])
    row = new_delivery(
        lane,
        WEBHOOK,
        now_ms=now_ms,
        deadline_ms=now_ms + RELEASED_FOR_MS,
        urgent=manifest.urgent,
        message=message.number,
        agency=name,
        held=why,
    )
    await enqueue(tx, [row])
    await give_sections(tx, message.number, [(section, kind, name)], now_ms)
    await add_event(tx, message.number, "given", now_ms, agency=name, detail=section)
    services.counters.add("sections_given")
    return lane
