"""Attachments between two nodes: uploaded, sent beside their message, opened, scanned, given out."""

import base64
import hashlib
import io
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from exchange.crypto.attachment import CHUNK_BYTES, MINIMUM_BYTES
from exchange.crypto.names import new_message_id
from tests.node.pair import ENFIELD, HACKNEY, NOW_MS, Clock, Node, Pair, form, running, running_pair, until

FILE = os.urandom(2 * CHUNK_BYTES + 77)


def names(title: str = "The order of the court", file_name: str = "order.pdf") -> dict[str, str]:
    document = {"title": title, "file_name": file_name, "media_type": "application/pdf"}
    return {"exchange-attachment": base64.urlsafe_b64encode(json.dumps(document).encode()).decode()}


async def upload(
    node: Node, message_id: str, data: Any = FILE, section: str = "injunction", number: int = 1, **header: str
) -> tuple[int, Any]:
    """Attach a file to a message that is yet to be sent."""
    path = f"http://local/v1/messages/{message_id}/attachments/{section}/{number}?to={ENFIELD}"
    body = io.BytesIO(data) if isinstance(data, bytes) else data
    async with node.local_http.put(path, data=body, headers=names(**header)) as answer:
        return answer.status, await answer.json(content_type=None)


async def send(node: Node, message_id: str) -> tuple[int, Any]:
    """Send the case study under an id."""
    headers = {"idempotency-key": message_id}
    path = f"http://local/v1/messages/to/{ENFIELD}"
    async with node.local_http.post(path, data=form(ENFIELD), headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def fetch(node: Node, message_id: str, section: str = "injunction", number: int = 1) -> tuple[int, bytes]:
    """What a person at a node is given."""
    path = f"http://local/v1/messages/{message_id}/attachments/{section}/{number}"
    async with node.local_http.get(path) as answer:
        return answer.status, await answer.read()


async def attached(node: Node, message_id: str) -> list[dict[str, Any]]:
    """What a node's status says of a message's attachments."""
    found = await node.status(message_id)
    return list(found.get("attachments", []))


async def comes_to(node: Node, message_id: str, *states: str) -> None:
    """Wait until a message's attachments are in these states at a node."""

    async def are_there() -> bool:
        return [one["state"] for one in await attached(node, message_id)] == list(states)

    await until(f"the attachments of {message_id} are {states} at {node.origin}", are_there)


async def sent_with(node: Node, data: bytes = FILE, **more: Any) -> str:
    """Send the case study with a file attached; the message's id."""
    message_id = new_message_id(NOW_MS)
    status, document = await upload(node, message_id, data, **more)
    assert status == 201, document
    status, document = await send(node, message_id)
    assert status == 201, document
    return message_id


async def test_an_attachment_goes_with_its_message_and_is_given_out_whole(pair: Pair) -> None:
    message_id = await sent_with(pair.hackney)

    await comes_to(pair.enfield, message_id, "ready")
    await comes_to(pair.hackney, message_id, "ready")

    assert await fetch(pair.enfield, message_id) == (200, FILE)
    assert await fetch(pair.hackney, message_id) == (200, FILE)
    assert pair.enfield.count("attachment_chunks_received") == 3
    _, timeline = await pair.enfield.local("GET", f"/v1/messages/{message_id}/timeline")
    assert [event["event"] for event in timeline["events"]].count("attachment-read") == 1


async def test_several_files_of_several_sections_go_under_one_secret_each(pair: Pair) -> None:
    message_id = new_message_id(NOW_MS)
    files = {("injunction", 1): b"one", ("injunction", 2): b"", ("risk", 1): os.urandom(70_000)}
    for (section, number), data in files.items():
        assert (await upload(pair.hackney, message_id, data, section, number))[0] == 201
    assert (await send(pair.hackney, message_id))[0] == 201

    await comes_to(pair.enfield, message_id, "ready", "ready", "ready")

    for (section, number), data in files.items():
        assert await fetch(pair.enfield, message_id, section, number) == (200, data)


async def test_nothing_of_a_file_or_its_name_stands_in_the_store_or_the_log(pair: Pair, lines: Any) -> None:
    marker = b"NAMES-OF-PEOPLE" * 10_000
    message_id = await sent_with(pair.hackney, marker, title="Anna Example", file_name="anna-example.jpg")
    await comes_to(pair.hackney, message_id, "ready")
    await fetch(pair.enfield, message_id)

    for node in (pair.hackney, pair.enfield):
        assert node.rows("SELECT wrapped, about FROM attachments") == [(None, None)]
        kept = b"".join(path.read_bytes() for path in node.directory.iterdir() if path.is_file())
        for secret in (b"NAMES-OF-PEOPLE", b"Anna Example", b"anna-example"):
            assert secret not in kept
    assert "anna" not in lines.getvalue().lower()


async def test_what_stands_beside_a_staged_file_is_sealed(pair: Pair) -> None:
    message_id = new_message_id(NOW_MS)
    await upload(pair.hackney, message_id, b"content", title="Anna Example")

    kept = b"".join(path.read_bytes() for path in pair.hackney.directory.iterdir() if path.is_file())

    assert b"Anna Example" not in kept
    _, listed = await pair.hackney.local("GET", f"/v1/messages/{message_id}/attachments")
    assert [item["state"] for item in listed["items"]] == ["staged"]


async def test_a_file_that_is_uploaded_again_takes_the_place_of_the_first(pair: Pair) -> None:
    message_id = new_message_id(NOW_MS)
    assert (await upload(pair.hackney, message_id, b"the wrong file"))[0] == 201
    assert (await upload(pair.hackney, message_id, b"the right file"))[0] == 201
    assert (await send(pair.hackney, message_id))[0] == 201

    await comes_to(pair.enfield, message_id, "ready")

    assert await fetch(pair.enfield, message_id) == (200, b"the right file")


async def test_who_repeats_all_of_it_sends_it_once(pair: Pair) -> None:
    message_id = await sent_with(pair.hackney)

    again = await upload(pair.hackney, message_id)
    other = await upload(pair.hackney, message_id, b"another file")
    more = await upload(pair.hackney, message_id, b"one more", number=2)
    status, sent = await send(pair.hackney, message_id)

    assert again[0] == 200, again
    assert again[1]["repeated"]
    assert other[0] == 409, other
    assert more[0] == 409, more
    assert (status, sent["repeated"]) == (200, True)
    await comes_to(pair.enfield, message_id, "ready")


async def test_a_file_for_a_part_that_the_form_does_not_have_stops_the_form(pair: Pair) -> None:
    message_id = new_message_id(NOW_MS)
    await upload(pair.hackney, message_id, b"content", section="no-such-part")

    status, document = await send(pair.hackney, message_id)

    assert (status, document["code"]) == (422, "form-invalid")
    assert pair.hackney.rows("SELECT count(*) FROM messages") == [(0,)]


async def test_a_file_that_is_cut_off_on_its_way_in_is_not_kept(pair: Pair) -> None:
    message_id = new_message_id(NOW_MS)

    async def half() -> AsyncIterator[bytes]:
        yield bytes(CHUNK_BYTES)
        yield bytes(CHUNK_BYTES)
        raise ConnectionError

    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await upload(pair.hackney, message_id, half())

    async def is_gone() -> bool:
        return pair.hackney.rows("SELECT count(*) FROM attachments") == [(0,)]

    await until("the half file is gone", is_gone)
    assert pair.hackney.rows("SELECT count(*) FROM attachment_chunks") == [(0,)]
    assert (await send(pair.hackney, message_id))[0] == 201


async def test_what_nobody_sends_within_a_day_is_removed(pair: Pair, clock: Clock) -> None:
    from exchange.node.staging import forget_stale

    await upload(pair.hackney, new_message_id(NOW_MS))
    await forget_stale(pair.hackney.services)
    assert pair.hackney.rows("SELECT count(*) FROM attachments") == [(1,)]

    clock.now_ms += 86_400_001
    await forget_stale(pair.hackney.services)

    assert pair.hackney.rows("SELECT count(*) FROM attachments") == [(0,)]
    assert pair.hackney.rows("SELECT count(*) FROM attachment_chunks") == [(0,)]


async def test_messages_pass_attachments(pair: Pair) -> None:
    """An attachment cannot go on; messages that are sent after it do."""
    pair.enfield.services.admission.count_chunks(pair.hackney.origin, 2**40, NOW_MS)
    message_id = await sent_with(pair.hackney)

    later = await pair.hackney.send(ENFIELD)
    await pair.hackney.reached(later, "received")

    assert [one["state"] for one in await attached(pair.hackney, message_id)] == ["sending"]
    assert pair.enfield.count("attachment_chunks_received") == 0


async def test_sizes_that_cross_are_padded(pair: Pair) -> None:
    message_id = await sent_with(pair.hackney, b"x")
    await comes_to(pair.enfield, message_id, "ready")

    assert pair.enfield.rows("SELECT size_bytes FROM attachments") == [(MINIMUM_BYTES + 24 + 17,)]


def scanner(directory: Path, code: str) -> list[str]:
    """A program that reads all of a file and then says something of it."""
    path = directory / "scanner"
    path.write_text(f"#!/bin/sh\ncat > {directory}/seen\n{code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return [str(path)]


def scan_table(directory: Path) -> str:
    code = f"grep -q RIDDLE {directory}/seen && exit 3\ngrep -q EICAR {directory}/seen && exit 1\nexit 0"
    return f"[scan]\ncommand = {json.dumps(scanner(directory, code))}\n"


@pytest.fixture
async def scanned(tmp_path: Path, clock: Clock, lines: Any) -> AsyncIterator[Pair]:
    """Two nodes with a scanner that finds something in what holds EICAR, and cannot say of what holds RIDDLE."""
    async with running_pair(tmp_path, clock, scan_table(tmp_path)) as nodes:
        yield nodes


@pytest.fixture
async def one_scans(tmp_path: Path, clock: Clock, lines: Any) -> AsyncIterator[Pair]:
    """Two nodes, of which the receiver alone has that scanner."""
    async with (
        running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", clock) as hackney,
        running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock, scan_table(tmp_path)) as enfield,
    ):
        await hackney.know(enfield)
        await enfield.know(hackney)
        yield Pair(hackney, enfield)


async def test_what_a_scanner_passes_is_ready_and_says_so(scanned: Pair, tmp_path: Path) -> None:
    message_id = await sent_with(scanned.hackney)

    await comes_to(scanned.hackney, message_id, "ready")

    assert [one["scanned"] for one in await attached(scanned.hackney, message_id)] == [True]
    assert hashlib.sha256((tmp_path / "seen").read_bytes()).digest() == hashlib.sha256(FILE).digest()


async def test_a_file_in_which_the_scan_finds_something_is_not_attached(scanned: Pair) -> None:
    status, document = await upload(scanned.hackney, new_message_id(NOW_MS), b"EICAR" * 100)

    assert (status, document["code"]) == (422, "attachment-refused")
    assert scanned.hackney.rows("SELECT count(*) FROM attachments") == [(0,)]
    assert [alarm["kind"] for alarm in await scanned.hackney.alarms(scanned.hackney.origin)] == ["attachment-found"]


async def test_a_file_of_which_the_scan_cannot_say_is_not_attached(scanned: Pair) -> None:
    status, document = await upload(scanned.hackney, new_message_id(NOW_MS), b"RIDDLE" * 100)

    assert (status, document["code"]) == (422, "attachment-refused")
    assert scanned.hackney.count("attachment_scans_unknown") == 1


async def quarantined(one_scans: Pair) -> str:
    """A message with a file in which the receiver's scanner finds something."""
    message_id = await sent_with(one_scans.hackney, b"EICAR" * 100)
    await comes_to(one_scans.hackney, message_id, "quarantined")
    return message_id


async def test_what_the_receivers_scan_finds_is_in_quarantine_at_both_ends(one_scans: Pair) -> None:
    message_id = await quarantined(one_scans)

    status, body = await fetch(one_scans.enfield, message_id)

    assert (status, json.loads(body)["code"]) == (409, "attachment-not-ready")
    for node, peer in ((one_scans.enfield, one_scans.hackney), (one_scans.hackney, one_scans.enfield)):
        assert [alarm["kind"] for alarm in await node.alarms(peer.origin)] == ["attachment-quarantined"]
        assert [one["state"] for one in await attached(node, message_id)] == ["quarantined"]


async def test_two_people_release_what_is_in_quarantine(one_scans: Pair) -> None:
    message_id = await quarantined(one_scans)
    node, path = one_scans.enfield, f"/v1/messages/{message_id}/attachments/injunction/1/release"
    _, made = await node.local("POST", "/v1/tokens", {"name": "the second person"})

    first = await node.local("POST", path)
    again = await node.local("POST", path)
    address = node.services.configuration.tables.local.address
    headers = {"authorization": f"Bearer {made['token']}"}
    async with node.http.post(f"http://{address}{path}", headers=headers) as answer:
        second = answer.status, await answer.json(content_type=None)

    assert (first[0], first[1]["released"]) == (200, False)
    assert again[0] == 409
    assert (second[0], second[1]["released"]) == (200, True)
    assert await fetch(node, message_id) == (200, b"EICAR" * 100)
    await comes_to(one_scans.hackney, message_id, "ready")


async def test_of_what_the_receivers_scan_cannot_say_nothing_is_given_out_and_it_is_held(one_scans: Pair) -> None:
    message_id = await sent_with(one_scans.hackney, b"RIDDLE" * 100)

    async def is_held() -> Any:
        return (await one_scans.enfield.status(message_id)).get("attachments_held")

    one_scans.enfield.clock.run()
    assert await until("the attachment is held", is_held) == "not scanned: the scanner ended with 3"
    assert [one["state"] for one in await attached(one_scans.enfield, message_id)] == ["whole"]
    assert (await fetch(one_scans.enfield, message_id))[0] == 409
