"""The links that go to an agency with its sections, and how a link is made.

The link of a section is the same in every event of it, until it has expired.
"""

import secrets
from typing import Final

from exchange.crypto.link import link_digest, link_token
from exchange.node.errors import RequestInvalid
from exchange.node.services import Services
from exchange.store.agencies import agency_named
from exchange.store.links import LinkRow, add_link, links_of
from exchange.store.transaction import Transaction

_DAY_MS: Final = 86_400_000
#: How long a link is good, where nobody says otherwise.
DAYS: Final = 7


def url_of(services: Services, token: str) -> str:
    """The address of a link.

    Raises:
        RequestInvalid: the configuration does not say where agencies reach the node.
    """
    base = services.configuration.tables.agencies.url
    if not base:
        raise RequestInvalid(
            "the configuration does not say where agencies reach this node",
            hint="Set `url` in [agencies], and restart the node.",
        )
    return f"{base.rstrip('/')}/acknowledge/{token}"


def check_links(services: Services, wanted: bool) -> None:
    """Check that links can be given to agencies, where that is wanted.

    Raises:
        RequestInvalid: the configuration does not say where agencies reach the node.
    """
    if wanted:
        url_of(services, "")


def new_link(
    services: Services, message: int, section: str, agency_id: str, made_by: str | None, days: int
) -> tuple[str, LinkRow]:
    """A fresh token, and what is kept of it."""
    link_id, now_ms = secrets.token_hex(8), services.now_ms()
    token = link_token(services.keyring.store_key, link_id)
    digest = link_digest(token) or b""
    return token, LinkRow(link_id, digest, message, section, agency_id, made_by, now_ms, now_ms + days * _DAY_MS)


async def event_links(services: Services, message: int, name: str, sections: list[str]) -> dict[str, str]:
    """The addresses that go to an agency with sections of a message: for each the one that it has, or a fresh one."""

    async def plan(tx: Transaction) -> tuple[dict[str, str], list[LinkRow]]:
        row = await agency_named(tx, name)
        if row is None:
            return {}, []
        of_agency = [link for link in await links_of(tx, message) if link.agency == row.id and link.made_by is None]
        known, given, fresh = {link.section: link for link in of_agency}, {}, []
        for section in sections:
            link = known.get(section)
            if link is not None and (link.used_at_ms is not None or link.withdrawn_at_ms is not None):
                continue
            token = "" if link is None else link_token(services.keyring.store_key, link.id)
            if link is None or link.expires_at_ms <= services.now_ms() or link_digest(token) != link.hash:
                token, link = new_link(services, message, section, row.id, None, DAYS)
                fresh.append(link)
            given[section] = url_of(services, token)
        return given, fresh

    async def make(tx: Transaction) -> dict[str, str]:
        given, fresh = await plan(tx)
        for link in fresh:
            await add_link(tx, link)
        return given

    given, fresh = await services.store.read(plan)
    return await services.store.write(make) if fresh else given
