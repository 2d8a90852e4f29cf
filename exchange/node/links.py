"""One-time links: by pressing one button, somebody at an agency without an API takes a section on.

* Only a press uses a link, in the transaction that signs what it says: of two people one has it, and what failed used
  nothing. To look at it, as scanners of mail do, changes nothing.
* The store has the SHA-256 of a token; the token follows from the link's id and the store key. So the link of an event
  is the same at every attempt.
* A link that went to the agency with its section speaks as the agency. One that the borough made and handed on speaks
  as the borough does for an agency: of what the agency has accepted, and the receipt says so.
* Where the sender sealed to a key by which the agency signs, no link can speak for it, and none is made.
"""

from dataclasses import dataclass
from typing import Any

from exchange.crypto.link import link_digest
from exchange.handover.holding import By, State
from exchange.handover.linking import Standing, standing
from exchange.node.acknowledging import Acknowledging, Word, signer_for
from exchange.node.errors import AgencySigns, LinkUseless, NotSaidThere, RequestInvalid
from exchange.node.event_links import new_link, url_of
from exchange.node.sections_here import SectionHere, Speaker, find_section
from exchange.node.services import Services, moment
from exchange.store.agencies import AgencyRow, agency, agency_named
from exchange.store.errors import NotFound
from exchange.store.links import LinkRow, add_link, find_link, links_of, use_link, withdraw_link
from exchange.store.messages import INBOUND, message_by_number, messages_by_id, placements_of
from exchange.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Shown:
    """What a link is about, as far as it stands; `section` where the agency has it."""

    row: LinkRow
    agency: AgencyRow
    section: SectionHere | None
    standing: Standing


class Links:
    """Makes, shows, uses and withdraws links."""

    def __init__(self, services: Services, acknowledging: Acknowledging) -> None:
        self._services = services
        self._acknowledging = acknowledging

    async def make(self, message_id: str, section: str, name: str | None, days: int, who: str) -> dict[str, Any]:
        """A link that a person can hand on; shown once.

        Raises:
            NotFound: the agency has no such section.
            RequestInvalid: several agencies have it, or there is no address for links.
            NotSaidThere: it has been taken on, or the agency has not accepted it.
            AgencySigns: the sender takes the agency's signed word alone.
        """
        services = self._services
        url_of(services, "")

        async def operation(tx: Transaction) -> tuple[str, LinkRow, str]:
            wanted = name or await _only_agency(tx, message_id, section)
            speaker = Speaker(wanted, By.BOROUGH, who)
            found = await find_section(tx, speaker, message_id, section)
            row = await agency_named(tx, wanted)
            if row is None or not found.is_theirs:
                raise NotFound(f"agency {wanted} has no section {message_id}/{section}")
            if found.state in (State.ROUTED, State.OWNED):
                raise NotSaidThere(f"no link can be made for a section that is {found.state}")
            if await signer_for(tx, found, speaker) is not None:
                raise AgencySigns("the sender takes only what this agency has signed with its own key")
            token, link = new_link(services, found.message.number, section, row.id, who, days)
            await add_link(tx, link)
            return token, link, wanted

        token, link, agency_name = await services.store.write(operation)
        services.counters.add("links_made")
        services.log.info("link made", agency=agency_name)
        return {**describe_link(link, agency_name), "url": url_of(services, token)}

    async def all_of(self, message_id: str, section: str) -> list[dict[str, Any]]:
        """The links for a section, oldest first."""

        async def view(tx: Transaction) -> list[dict[str, Any]]:
            return [
                describe_link(link, (await agency(tx, link.agency)).name)
                for message in await messages_by_id(tx, message_id)
                for link in await links_of(tx, message.number)
                if link.section == section
            ]

        return await self._services.store.read(view)

    async def withdraw(self, link_id: str) -> None:
        """Make a link useless.

        Raises:
            NotFound: there is none that could be used.
        """
        now_ms = self._services.now_ms()
        await self._services.store.write(lambda tx: withdraw_link(tx, link_id, now_ms))

    async def show(self, token: str) -> Shown | None:
        """What a link is about; None where there is none. Changes nothing."""
        return await self._services.store.read(lambda tx: self._look(tx, token))

    async def use(self, token: str, word: Word) -> Shown | None:
        """Take a section on by a link; None where there is no such link.

        Raises:
            LinkUseless: it cannot be used any more, or somebody was faster.
            NodeError: what is said cannot be said now; the link is as it was.
        """
        shown = await self.show(token)
        if shown is None:
            return None
        if shown.section is None or shown.standing is not Standing.GOOD:
            raise LinkUseless(shown.standing.value)
        link = shown.row

        async def first(tx: Transaction) -> None:
            now = await self._look(tx, token)
            if now is None or now.standing is not Standing.GOOD:
                raise LinkUseless(Standing.USED.value if now is None else now.standing.value)
            if not await use_link(tx, link.id, self._services.now_ms()):
                raise LinkUseless(Standing.USED.value)

        speaker = _speaker(link, shown.agency)
        message_id = shown.section.message.message_id
        await self._acknowledging.say(speaker, message_id, link.section, word, first)
        self._services.counters.add("links_used")
        self._services.log.info("link used", agency=shown.agency.name)
        return shown

    async def _look(self, tx: Transaction, token: str) -> Shown | None:
        digest = link_digest(token)
        row = await find_link(tx, digest) if digest is not None else None
        if row is None:
            return None
        of = await agency(tx, row.agency)
        try:
            message = await message_by_number(tx, row.message)
            found = await find_section(tx, _speaker(row, of), message.message_id, row.section)
        except NotFound:
            found = None
        how = standing(
            used=row.used_at_ms is not None,
            withdrawn=row.withdrawn_at_ms is not None,
            expires_at_ms=row.expires_at_ms,
            now_ms=self._services.now_ms(),
            state=found.state if found is not None and found.is_theirs else None,
            needs_delivery=row.made_by is not None,
        )
        return Shown(row, of, found, how)


def _speaker(link: LinkRow, row: AgencyRow) -> Speaker:
    if link.made_by is None:
        return Speaker(row.name, By.AGENCY)
    return Speaker(row.name, By.BOROUGH, f"link {link.id} of {link.made_by}")


async def _only_agency(tx: Transaction, message_id: str, section: str) -> str:
    """The agency that has a section, where it is one."""
    names = {
        place.given_to
        for message in await messages_by_id(tx, message_id)
        if message.direction == INBOUND
        for place in await placements_of(tx, message.number)
        if place.section == section and place.given_to is not None
    }
    if not names:
        raise NotFound(f"no agency here has a section {message_id}/{section}")
    if len(names) > 1:
        raise RequestInvalid(f"several agencies have it: {', '.join(sorted(names))}", hint="Name one with --agency.")
    return names.pop()


def describe_link(link: LinkRow, name: str) -> dict[str, Any]:
    """A link for an admin: not its token, which is shown once."""
    return {
        "id": link.id,
        "section": link.section,
        "agency": name,
        "made_by": link.made_by,
        "made_at": moment(link.made_at_ms),
        "expires_at": moment(link.expires_at_ms),
        "used_at": None if link.used_at_ms is None else moment(link.used_at_ms),
        "withdrawn_at": None if link.withdrawn_at_ms is None else moment(link.withdrawn_at_ms),
    }
