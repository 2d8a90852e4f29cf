"""Attachments for agencies: fetched from the agencies' listener, by who was given the section and by nobody else.

* An agency with a key of its own gets the sealed chunks as they came, one after the other, and opens them itself.
* For the others the node opens: what was verified whole and passed the scan, chunk by chunk as it is read.
* What is in quarantine is given to neither.
* A token that ends while a file is on its way ends the file.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from exchange.crypto.errors import CryptoError
from exchange.crypto.statement import parse_statement
from exchange.handover.attachments import Stage
from exchange.handover.holding import is_over
from exchange.node.agency_keys import is_for_others, own_parcel
from exchange.node.agency_listener import ASKING
from exchange.node.agency_tokens import Asking
from exchange.node.attachment_opening import open_attachment
from exchange.node.attachments_api import check_ready, note_read, place_of_attachment
from exchange.node.errors import AttachmentNotReady, TooManyRequests
from exchange.node.services import Services
from exchange.schema.wire import decode_wire, manifest_decoder
from exchange.store.agency_keys import all_agency_keys, kinds_by_key
from exchange.store.attachments import AttachmentRow, chunks_of, find_attachment
from exchange.store.errors import NotFound
from exchange.store.messages import INBOUND, MessageRow, message_by_id, placements_of
from exchange.store.transaction import Transaction

_MOST_AT_ONCE: Final = 2
#: For a part of a file: who reads more slowly loses the connection.
_WRITE_S: Final = 60.0
_ASKED_AGAIN_EVERY: Final = 16


class AgencyAttachments:
    """The handler."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._under_way: Counter[str] = Counter()

    def routes(self) -> list[web.RouteDef]:
        """For agencies, by their tokens."""
        return [web.get("/v1/agency/attachments/{id}/{section}/{place}", self._fetch, allow_head=False)]

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        asking = request[ASKING]
        message, row, is_sealed = await self._services.store.read(lambda tx: _find(tx, self._services, request))
        if is_sealed:
            if row.state not in (Stage.STORED.value, Stage.READY.value):
                raise AttachmentNotReady(f"attachment {row.place} of {row.section} is {row.state}; ask again later")
            parts, size_bytes = self._sealed(row), row.size_bytes
        else:
            check_ready(row)
            opening = await open_attachment(self._services, row)
            parts, size_bytes = opening.chunks(), opening.described.size_bytes
        if self._under_way[asking.agency.id] >= _MOST_AT_ONCE:
            raise TooManyRequests(f"{_MOST_AT_ONCE} attachments are on their way to this agency", 5.0)
        self._under_way[asking.agency.id] += 1
        try:
            detail = f"attachment {row.place} of {row.section}, to agency {asking.agency.name}"
            await note_read(self._services, message, detail)
            return await self._write(request, asking, parts, size_bytes)
        finally:
            self._under_way[asking.agency.id] -= 1

    async def _sealed(self, row: AttachmentRow) -> AsyncIterator[bytes]:
        for index in range(row.chunks):
            found = await self._services.store.read(lambda tx, index=index: chunks_of(tx, row.number, index))  # type: ignore[misc]
            if not found:
                raise NotFound("a chunk of the attachment is not here any more")
            yield found[0]

    async def _write(
        self, request: web.Request, asking: Asking, parts: AsyncIterator[bytes], size_bytes: int
    ) -> web.StreamResponse:
        """Write a file. What cannot come to its end ends with its connection: half a file is no file."""
        services = self._services
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(size_bytes),
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        count = 0
        try:
            async for data in parts:
                if count % _ASKED_AGAIN_EVERY == 0:
                    in_force = await services.store.read(lambda tx: asking.is_in_force(tx, services.now_ms()))
                    if not in_force:
                        raise AttachmentNotReady("the token is not good any more")
                count += 1
                async with asyncio.timeout(_WRITE_S):
                    await response.write(data)
            await response.write_eof()
        except (TimeoutError, CryptoError, NotFound, AttachmentNotReady) as error:
            services.log.warning("attachment given up", agency=asking.agency.kind, reason=str(error))
            if request.transport is not None:
                request.transport.abort()
        return response


async def _find(tx: Transaction, services: Services, request: web.Request) -> tuple[MessageRow, AttachmentRow, bool]:
    """The attachment that an agency asks for, and whether the agency opens it itself.

    Raises:
        NotFound: there is none, or it is not for that agency: which of them is not said.
        RequestInvalid: what is asked for cannot be.
    """
    message_id, section, place = place_of_attachment(request)
    agency, nothing = request[ASKING].agency, NotFound("there is no such attachment for this agency, or not yet")
    try:
        message = await message_by_id(tx, message_id)
    except NotFound:
        raise nothing from None
    if message.direction != INBOUND:
        raise nothing
    given = [
        placed.section
        for placed in await placements_of(tx, message.number)
        if placed.given_to == agency.name and not is_over(placed.rung)
    ]
    if section not in given:
        raise nothing
    manifest = decode_wire(manifest_decoder, parse_statement(message.statement).body)
    row = await find_attachment(tx, message.origin, message_id, section, place)
    if row is None:
        raise nothing
    keys = kinds_by_key(await all_agency_keys(tx)) if is_for_others(services, manifest) else {}
    return message, row, own_parcel(manifest, keys, agency.kind) is not None
