"""The local API's part for attachments: upload, list, fetch, release.

* Names and titles of files come and go in a header of their own, encoded: no URL and no log has them.
* Whoever fetches a file is written down in the message's timeline.
* Out of quarantine leads a release by two different people.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from aiohttp import web

from exchange.crypto.attachment import CHUNK_BYTES, MOST_BYTES, MOST_OF_A_SECTION
from exchange.crypto.errors import AttachmentError, CryptoError, NameInvalid
from exchange.crypto.names import Origin, SectionName, parse_message_id, parse_section_name
from exchange.handover.attachments import Stage
from exchange.node.attachment_opening import Opening, open_attachment
from exchange.node.attachment_reports import settle
from exchange.node.delivery import Dispatcher
from exchange.node.errors import AttachmentNotReady, IdentityRevoked, RequestInvalid
from exchange.node.local_bounds import BODY_TIMEOUT_S, streamed
from exchange.node.peers_api import who_asks
from exchange.node.problems import json_response, problem
from exchange.node.reading import describe_attachment
from exchange.node.repeats import is_known
from exchange.node.sending import peer_for_area
from exchange.node.services import Services
from exchange.node.staging import Upload, described_staged, digest_of, stage
from exchange.schema.attachments import AttachmentState, FileName, MediaType
from exchange.schema.wire import NameText
from exchange.store.attachments import (
    AttachmentRow,
    attachments_of_message,
    attachments_sent_as,
    find_attachment,
    note_released,
)
from exchange.store.errors import Conflict, NotFound
from exchange.store.messages import OUTBOUND, MessageRow, add_event, message_by_id
from exchange.store.peers import peers_of_area
from exchange.store.transaction import Transaction

HEADER: Final = "exchange-attachment"


class FileNames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person calls a file: the header `exchange-attachment`, as JSON in base64url."""

    title: NameText
    file_name: FileName
    media_type: MediaType = "application/octet-stream"


class AttachmentsApi:
    """The handlers for attachments."""

    def __init__(self, services: Services, dispatcher: Dispatcher) -> None:
        self._services = services
        self._dispatcher = dispatcher

    def routes(self) -> list[web.RouteDef]:
        """The routes, for the local API's application."""
        return [
            web.get("/v1/messages/{id}/attachments", self._all),
            web.put("/v1/messages/{id}/attachments/{section}/{place}", self._upload),
            web.get("/v1/messages/{id}/attachments/{section}/{place}", self._fetch),
            web.post("/v1/messages/{id}/attachments/{section}/{place}/release", self._release),
        ]

    @streamed
    async def _upload(self, request: web.Request) -> web.Response:
        services = self._services
        if services.revoked.file is not None:
            raise IdentityRevoked("this node's identity is revoked; nothing was attached")
        if (request.content_length or 0) > MOST_BYTES:
            raise RequestInvalid("an attachment is 2 GiB at most; nothing was attached")
        area, names = request.query.get("to", ""), _names(request)
        message_id, section, place = place_of_attachment(request)
        peer = peer_for_area(await services.store.read(peers_of_area(area)), area)
        services.admission.check_sending(f"peer:{peer.origin}")
        upload = Upload(
            parse_message_id(message_id),
            section,
            place,
            Origin(peer.origin),
            names.title,
            names.file_name,
            names.media_type,
        )
        own = services.configuration.origin

        async def find(tx: Transaction) -> tuple[AttachmentRow | None, bool]:
            found = await find_attachment(tx, own, message_id, section, place)
            return found, await is_known(tx, own, upload.message_id)

        row, known = await services.store.read(find)
        if row is not None and known:
            same = await self._is_same(row, upload, _body(request))
            if not same:
                raise Conflict(f"message {message_id} was sent with another file as attachment {place} of {section}")
            return json_response({**describe_attachment(row), "repeated": True})
        try:
            described, scanned = await stage(services, upload, _body(request))
        except AttachmentError:
            raise RequestInvalid("an attachment is 2 GiB at most; nothing was attached") from None
        except TimeoutError:
            return problem(408, "too-slow", "the file stopped coming; nothing was attached")
        return json_response(
            {
                "section": section,
                "number": place,
                "state": Stage.STAGED.value,
                "size_bytes": described.size_bytes,
                "sha256": described.sha256,
                "scanned": scanned,
            },
            201,
        )

    async def _is_same(self, row: AttachmentRow, upload: Upload, body: AsyncIterator[bytes]) -> bool:
        if row.message is None:  # its form waits for a key
            described = described_staged(self._services, row)
        else:
            described = (await open_attachment(self._services, row)).described
        if described is None:
            return False
        names = (described.title, described.file_name, described.media_type)
        return names == (upload.title, upload.file_name, upload.media_type) and await digest_of(body) == (
            described.size_bytes,
            described.sha256,
        )

    async def _all(self, request: web.Request) -> web.Response:
        message_id, own = request.match_info["id"], self._services.configuration.origin

        async def collect(tx: Transaction) -> list[AttachmentRow]:
            try:
                return await attachments_of_message(tx, (await message_by_id(tx, message_id)).number)
            except NotFound:
                staged = await attachments_sent_as(tx, own, message_id)
                if not staged:
                    raise
                return staged

        rows = await self._services.store.read(collect)
        return json_response({"id": message_id, "items": [describe_attachment(row) for row in rows]})

    async def _found(self, request: web.Request) -> tuple[MessageRow, AttachmentRow]:
        message_id, section, place = place_of_attachment(request)

        async def find(tx: Transaction) -> tuple[MessageRow, AttachmentRow]:
            message = await message_by_id(tx, message_id)
            row = await find_attachment(tx, message.origin, message_id, section, place)
            if row is None:
                raise NotFound(f"message {message_id} has no attachment {place} of {section}")
            return message, row

        return await self._services.store.read(find)

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        message, row = await self._found(request)
        if message.direction != OUTBOUND:
            check_ready(row)
        opening = await open_attachment(self._services, row)
        detail = f"attachment {row.place} of {row.section}, by {who_asks(request)}"
        await note_read(self._services, message, detail)
        return await give_out(self._services, request, opening)

    async def _release(self, request: web.Request) -> web.Response:
        services, who = self._services, who_asks(request)
        message, row = await self._found(request)

        async def operation(tx: Transaction) -> bool:
            now_ms, detail = services.now_ms(), f"attachment {row.place} of {row.section}, by {who}"
            found = await find_attachment(tx, row.origin, row.message_id, row.section, row.place)
            if found is None or found.state != Stage.QUARANTINED.value or message.direction == OUTBOUND:
                raise Conflict("this attachment is not in quarantine here")
            if found.released_by is None:
                await note_released(tx, row.number, who)
                await add_event(tx, message.number, "attachment-release", now_ms, detail=detail)
                return False
            if found.released_by == who:
                raise Conflict(f"{who} has asked for its release already: another person must, from their own account")
            await add_event(tx, message.number, "attachment-release", now_ms, detail=detail)
            return await settle(services, tx, message, found, AttachmentState.READY, scanned=True)

        released = await services.store.write(operation)
        if released:
            services.counters.add("attachments_released")
            self._dispatcher.wake(f"peer:{message.peer}")
            services.changes.notify()
        return json_response({"section": row.section, "number": row.place, "released": released, "by": who})


def check_ready(row: AttachmentRow) -> None:
    """Refuse to give out what may not be.

    Raises:
        AttachmentNotReady: it is not all here, was not opened and scanned, is in quarantine or damaged.
    """
    if row.state == Stage.READY.value:
        return
    hint = None
    if row.state == Stage.QUARANTINED.value:
        hint = "Two people may release it: `exchange attachment release`."
    raise AttachmentNotReady(f"attachment {row.place} of {row.section} is {row.state}; it is not given out", hint=hint)


async def note_read(services: Services, message: MessageRow, detail: str) -> None:
    """Write down who was given an attachment, before they are."""
    now_ms = services.now_ms()
    await services.store.write(lambda tx: add_event(tx, message.number, "attachment-read", now_ms, detail=detail))
    services.counters.add("attachments_read")


async def give_out(services: Services, request: web.Request, opening: Opening) -> web.StreamResponse:
    """The file as a stream. Where it cannot come to its end the connection is cut: half a file is no file."""
    described = opening.described
    names = FileNames(title=described.title, file_name=described.file_name, media_type=described.media_type)
    response = web.StreamResponse(
        headers={
            "content-type": "application/octet-stream",
            "content-length": str(described.size_bytes),
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
            HEADER: base64.urlsafe_b64encode(msgspec.json.encode(names)).decode(),
        }
    )
    await response.prepare(request)
    try:
        async for data in opening.chunks():
            await response.write(data)
    except (CryptoError, NotFound) as error:
        services.log.error("attachment given up", code=error.code)
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


def place_of_attachment(request: web.Request) -> tuple[str, SectionName, int]:
    """Message, section and number in a request's path.

    Raises:
        RequestInvalid: they cannot be.
    """
    found = request.match_info
    try:
        message_id, section = parse_message_id(found["id"]), parse_section_name(found["section"])
    except NameInvalid as error:
        raise RequestInvalid(str(error)) from None
    text = found["place"]
    if not (text.isascii() and text.isdigit() and len(text) < 3 and 1 <= int(text) <= MOST_OF_A_SECTION):
        raise RequestInvalid(f"attachments are numbered from 1 to {MOST_OF_A_SECTION}")
    return message_id, section, int(text)


def _names(request: web.Request) -> FileNames:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(request.headers.get(HEADER, "")), type=FileNames)
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise RequestInvalid(f"the header {HEADER} must hold title, file_name and media_type") from None


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    while True:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            data = await request.content.read(CHUNK_BYTES)
        if not data:
            return
        yield data
