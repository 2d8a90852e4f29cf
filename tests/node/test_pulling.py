"""Agencies that fetch: nothing is skipped, and nothing is given out after it was acknowledged."""

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.node.agency_watch import WAITING_MS, WAITING_URGENT_MS, AgencyWatch
from exchange.node.errors import RequestInvalid
from exchange.node.pulling import AGAIN_AFTER_MS, Cursor, Pulling
from exchange.store.offers import FeedRow, OfferRow
from tests.node.fetcher import Fetcher, add, listening, names, send
from tests.node.handmade import CONTENT, Desk
from tests.node.pair import Clock, Node, until

HOUR_MS = 3_600_000


@pytest.fixture
async def enfield(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Node]:
    """Enfield's node, with the listener for agencies."""
    async with listening(tmp_path, clock) as node:
        yield node


@pytest.fixture
async def housing(enfield: Node, desk: Desk) -> Fetcher:
    """An agency that fetches, at a node that knows Camden."""
    await enfield.know(desk.borough)
    return await add(enfield)


async def offered(node: Node, count: int) -> None:
    """Wait until so much is offered."""

    async def is_offered() -> bool:
        return node.rows("SELECT count(*) FROM offers") == [(count,)]

    await until(f"{count} sections are offered", is_offered)


async def rungs(node: Node, message_id: str, kind: str = "housing") -> dict[str, str]:
    return {
        item["section"]: item["rung"] for item in (await node.status(message_id))["sections"] if item["agency"] == kind
    }


async def test_an_agency_fetches_the_events_that_a_webhook_would_have_brought(
    enfield: Node, housing: Fetcher, desk: Desk
) -> None:
    sent = await send(enfield, desk.borough)
    page = await housing.fetch(wait=20)
    assert names(page["items"]) == ["housing", "subject"]
    event = page["items"][0]
    assert (event["specversion"], event["type"]) == ("1.0", "exchange.section.delivered.v1")
    assert event["data"]["content"] == {"text": CONTENT}
    assert event["subject"] == f"{sent}/housing"
    assert await rungs(enfield, sent) == {"housing": "routed", "subject": "routed"}
    assert await housing.says(event["id"]) == 200
    assert await rungs(enfield, sent) == {"housing": "delivered", "subject": "routed"}
    assert names((await housing.fetch())["items"]) == ["subject"]
    assert await housing.says(page["items"][1]["id"]) == 200
    assert (await housing.fetch())["items"] == []
    assert enfield.rows("SELECT count(*) FROM outbox WHERE lane = 'agency:housing'") == [(0,)]
    assert enfield.count("sections_delivered") == 2


async def test_what_was_acknowledged_is_not_given_out_and_not_signed_for_again(
    enfield: Node, housing: Fetcher, desk: Desk
) -> None:
    await send(enfield, desk.borough)
    (first, second) = (await housing.fetch(wait=20))["items"]
    answers = await asyncio.gather(*(housing.says(first["id"]) for _ in range(5)))
    assert sorted(answers) == [200, 404, 404, 404, 404]
    assert names((await housing.fetch())["items"]) == ["subject"]
    assert enfield.rows("SELECT count(*) FROM receipts WHERE rung = 'delivered'") == [(1,)]
    assert await housing.says(second["id"]) == 200


async def test_who_stopped_before_it_said_so_gets_it_again_and_who_asks_on_does_not(
    enfield: Node, housing: Fetcher, desk: Desk
) -> None:
    await send(enfield, desk.borough)
    page = await housing.fetch(wait=20)
    assert (await housing.fetch(page["after"]))["items"] == []
    assert (await housing.fetch())["items"] == page["items"]
    other = await send(enfield, desk.borough)
    assert {item["data"]["message_id"] for item in (await housing.fetch(page["after"], wait=20))["items"]} == {other}


async def test_pages_are_bounded_and_nothing_is_between_them(enfield: Node, housing: Fetcher, desk: Desk) -> None:
    sent = [await send(enfield, desk.borough) for _ in range(4)]
    await offered(enfield, 8)
    seen: list[str] = []
    after = ""
    while items := (page := await housing.fetch(after, limit=3))["items"]:
        assert len(items) <= 3
        seen += [item["subject"] for item in items]
        after = page["after"]
    assert seen == [f"{message_id}/{section}" for message_id in sent for section in ("housing", "subject")]


async def test_a_page_is_bounded_in_bytes(enfield: Node, housing: Fetcher, desk: Desk) -> None:
    large = msgspec.msgpack.encode({"text": "x" * 900_000})
    for _ in range(6):
        await send(enfield, desk.borough, parts=(("housing", ("housing",)),), content=large)
    await offered(enfield, 6)
    page = await housing.fetch()
    assert 1 < len(page["items"]) < 6
    rest = await housing.fetch(page["after"])
    assert len(page["items"]) + len(rest["items"]) == 6


async def test_what_is_urgent_comes_first_and_is_behind_no_cursor(enfield: Node, housing: Fetcher, desk: Desk) -> None:
    usual = [await send(enfield, desk.borough) for _ in range(3)]
    await offered(enfield, 6)
    first = await housing.fetch(limit=3)
    urgent = await send(enfield, desk.borough, urgent=True)
    await offered(enfield, 8)
    found = await housing.fetch(first["after"])
    ids = [item["data"]["message_id"] for item in found["items"]]
    assert ids == [urgent, urgent, usual[1], usual[2], usual[2]]
    assert [item["data"]["message_id"] for item in (await housing.fetch(limit=2))["items"]] == [urgent, urgent]


async def test_an_agency_that_waits_is_woken_by_what_comes(enfield: Node, housing: Fetcher, desk: Desk) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    waiting = asyncio.create_task(housing.fetch(wait=60))

    async def waits() -> bool:
        return enfield.rows("SELECT count(*) FROM feeds WHERE asked_at_ms IS NOT NULL") == [(1,)]

    await until("it waits", waits)
    await send(enfield, desk.borough)
    assert names((await waiting)["items"])[0] == "housing"
    assert loop.time() - began_s < 15


async def test_a_token_that_is_revoked_ends_the_wait_under_it_and_gives_nothing_out(
    enfield: Node, housing: Fetcher, desk: Desk
) -> None:
    waiting = asyncio.create_task(housing.ask("GET", "/v1/agency/sections?wait=60"))

    async def waits() -> bool:
        return enfield.rows("SELECT count(*) FROM feeds WHERE asked_at_ms IS NOT NULL") == [(1,)]

    await until("it waits", waits)
    place = f"/v1/agencies/{housing.id}/tokens"
    (token,) = (await enfield.local("GET", place))[1]["items"]
    assert (await enfield.local("DELETE", f"{place}/{token['id']}"))[0] == 200
    status, document = await waiting
    assert (status, document["code"]) == (401, "token-needed")


async def test_an_agency_gets_its_own_sections_and_acknowledges_no_others(
    enfield: Node, housing: Fetcher, desk: Desk
) -> None:
    dwp = await add(enfield, "dwp")
    sent = await send(enfield, desk.borough)
    await offered(enfield, 3)
    (theirs,) = (await dwp.fetch(wait=20))["items"]
    assert await housing.says(theirs["id"]) == 404
    assert await rungs(enfield, sent, "dwp") == {"subject": "routed"}
    assert await dwp.says(theirs["id"]) == 200


async def test_what_is_paused_waits_and_comes_past_every_cursor_when_it_is_resumed(
    enfield: Node, housing: Fetcher, desk: Desk
) -> None:
    old = await send(enfield, desk.borough)
    page = await housing.fetch(wait=20)
    status, paused = await enfield.local("POST", f"/v1/agencies/{housing.id}/pause", {"reason": "moving"})
    assert (status, paused["held"]) == (200, 1)
    new = await send(enfield, desk.borough)
    found = await housing.fetch()
    assert (found["state"], found["items"]) == ("paused", [])

    async def is_held() -> bool:
        return len((await enfield.local("GET", "/v1/held"))[1]["items"]) >= 2

    await until("what comes is held too", is_held)
    assert await housing.says(page["items"][0]["id"]) == 200, "what it has, it has"
    await enfield.local("POST", f"/v1/agencies/{housing.id}/resume")
    await offered(enfield, 3)
    subjects = [item["subject"] for item in (await housing.fetch(page["after"], wait=20))["items"]]
    assert sorted(subjects) == sorted([f"{old}/subject", f"{new}/housing", f"{new}/subject"])


async def test_what_was_fetched_and_not_acknowledged_comes_again_past_every_cursor(
    enfield: Node, housing: Fetcher, desk: Desk, clock: Clock
) -> None:
    await send(enfield, desk.borough)
    page = await housing.fetch(wait=20)
    clock.now_ms += AGAIN_AFTER_MS - 1
    await looks(enfield)
    assert (await housing.fetch(page["after"]))["items"] == []
    clock.now_ms += 1
    await looks(enfield)
    assert (await housing.fetch(page["after"]))["items"] == page["items"]


async def looks(node: Node) -> None:
    """What the node does from time to time."""
    pulling = Pulling(node.services, None, lambda lane: None)  # type: ignore[arg-type]
    await AgencyWatch(node.services, pulling).look()


async def test_a_replay_is_given_out_under_the_same_ids_and_signed_for_once(
    enfield: Node, housing: Fetcher, desk: Desk
) -> None:
    sent = await send(enfield, desk.borough)
    page = await housing.fetch(wait=20)
    for item in page["items"]:
        assert await housing.says(item["id"]) == 200
    status, resent = await enfield.local("POST", f"/v1/agencies/{housing.id}/replay", {"message_id": sent})
    assert (status, resent["sections"]) == (200, 2)
    again = await housing.fetch(page["after"], wait=20)
    assert [item["id"] for item in again["items"]] == [item["id"] for item in page["items"]]
    for item in again["items"]:
        assert await housing.says(item["id"]) == 200
    assert (await housing.fetch())["items"] == []
    assert (enfield.count("sections_delivered"), enfield.count("sections_replayed")) == (2, 2)
    assert enfield.rows("SELECT count(*) FROM receipts WHERE rung = 'delivered'") == [(2,)]
    attempts = (await enfield.local("GET", f"/v1/messages/{sent}/attempts"))[1]["items"]
    assert [(item["accepted"], item["replay"]) for item in attempts] == [(True, False)] * 2 + [(True, True)] * 2


async def test_what_an_agency_cannot_open_is_held_and_the_admins_are_told(
    enfield: Node, housing: Fetcher, desk: Desk
) -> None:
    await send(enfield, desk.borough)
    (first, _) = (await housing.fetch(wait=20))["items"]
    assert await housing.says(first["id"], "refused") == 200
    assert (await housing.fetch())["items"] == []
    reasons = [item["reason"] for item in (await enfield.local("GET", "/v1/held"))[1]["items"]]
    assert "agency housing cannot open it" in reasons
    assert "agency-refuses" in [alarm["kind"] for alarm in await enfield.alarms(enfield.origin)]


async def test_what_has_expired_is_held(enfield: Node, housing: Fetcher, desk: Desk, clock: Clock) -> None:
    await send(enfield, desk.borough)
    await offered(enfield, 2)
    clock.now_ms += 14 * 24 * HOUR_MS
    pulling_wakes: list[str] = []
    await Pulling(enfield.services, None, pulling_wakes.append).look()  # type: ignore[arg-type]
    assert pulling_wakes == ["agency:housing"]
    assert (await housing.fetch())["items"] == []
    # The dispatcher was woken by nobody in this test: a pause and its end wake the lane.
    await enfield.local("POST", f"/v1/agencies/{housing.id}/enable")

    async def is_held() -> bool:
        reasons = {item["reason"] for item in (await enfield.local("GET", "/v1/held"))[1]["items"]}
        return "not delivered before it expired" in reasons

    await until("it is held", is_held)


async def test_what_waits_for_an_agency_that_is_removed_is_held_and_goes_to_the_next(
    enfield: Node, housing: Fetcher, desk: Desk
) -> None:
    sent = await send(enfield, desk.borough)
    page = await housing.fetch(wait=20)
    await housing.says(page["items"][0]["id"])
    assert (await enfield.local("DELETE", f"/v1/agencies/{housing.id}"))[0] == 200

    async def is_held() -> bool:
        reasons = [item["reason"] for item in (await enfield.local("GET", "/v1/held"))[1]["items"]]
        return "no agency of kind housing is registered" in reasons

    await until("it is held", is_held)
    assert enfield.rows("SELECT count(*) FROM offers") == [(0,)]
    after = await add(enfield)
    assert [item["subject"] for item in (await after.fetch(wait=20))["items"]] == [f"{sent}/subject"]


async def test_a_cursor_of_another_store_begins_anew(enfield: Node, housing: Fetcher, desk: Desk) -> None:
    await send(enfield, desk.borough)
    page = await housing.fetch(wait=20)
    word, _, _ = page["after"].split(".")
    for cursor in ("0" * 16 + ".999.999", f"{word}.0.{10**17}"):
        assert (await housing.fetch(cursor))["items"] == page["items"]


@pytest.mark.parametrize(
    "query", ["after=1", "after=0.0.0", "wait=-1", "wait=x", "limit=0", "limit=x", "wait=" + "9" * 20]
)
async def test_what_does_not_fit_is_refused(housing: Fetcher, query: str) -> None:
    status, document = await housing.ask("GET", f"/v1/agency/sections?{query}")
    assert (status, document["code"]) == (400, "request-invalid")


async def test_more_waits_than_an_agency_needs_are_refused(enfield: Node, housing: Fetcher) -> None:
    waiting = [asyncio.create_task(housing.ask("GET", "/v1/agency/sections?wait=60")) for _ in range(7)]

    async def is_full() -> bool:
        return sum(task.done() for task in waiting) == 3

    await until("there are enough", is_full)
    assert [task.result()[0] for task in waiting if task.done()] == [429] * 3
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    async def has_room() -> bool:
        return (await housing.ask("GET", "/v1/agency/sections"))[0] == 200

    await until("who has gone waits no more", has_room)


async def test_who_gets_webhooks_does_not_fetch(enfield: Node, desk: Desk) -> None:
    body = {"kind": "dwp", "url": "http://127.0.0.1:9/", "networks": ["127.0.0.0/8"], "handshake": False}
    _, added = await enfield.local("POST", "/v1/agencies", body)
    _, made = await enfield.local("POST", f"/v1/agencies/{added['id']}/tokens", {})
    other = Fetcher(enfield, made["url"], added["id"], made["token"])
    status, document = await other.ask("GET", "/v1/agency/sections")
    assert (status, document["code"]) == (400, "request-invalid")


async def test_verbs_of_webhooks_say_why_they_do_nothing(enfield: Node, housing: Fetcher) -> None:
    here = f"/v1/agencies/{housing.id}"
    for verb, body in (("test", None), ("secret", {}), ("settings", {"timeout_s": 5})):
        status, document = await enfield.local("POST", f"{here}/{verb}", body)
        assert (status, document["code"]) == (400, "request-invalid"), verb
    _, shown = await enfield.local("GET", here)
    assert (shown["way"], shown["url"], shown["secret_id"], shown["asked_at"]) == ("pull", None, None, None)
    await housing.fetch()
    assert (await enfield.local("GET", here))[1]["asked_at"] is not None


@pytest.mark.parametrize(
    "more",
    [{"url": "https://a.example/"}, {"folder": {"directory": "/x"}}, {"networks": ["10.0.0.0/8"]}, {"proxy": "x"}],
)
async def test_an_agency_is_reached_in_one_way(enfield: Node, more: dict[str, Any]) -> None:
    status, document = await enfield.local("POST", "/v1/agencies", {"kind": "housing", "pull": True, **more})
    assert (status, document["code"]) == (400, "request-invalid")


@pytest.mark.parametrize(("urgent", "patience_ms"), [(False, WAITING_MS), (True, WAITING_URGENT_MS)])
async def test_the_admins_are_told_once_a_day_of_who_does_not_come(
    enfield: Node, housing: Fetcher, desk: Desk, clock: Clock, urgent: bool, patience_ms: int
) -> None:
    await send(enfield, desk.borough, urgent=urgent)
    await offered(enfield, 2)

    async def told() -> list[str]:
        await looks(enfield)
        found = await enfield.alarms(enfield.origin)
        return [alarm["detail"] for alarm in found if alarm["kind"] == "agency-not-fetching"]

    clock.now_ms += patience_ms - 1
    assert await told() == []
    clock.now_ms += 1
    hours = patience_ms / HOUR_MS
    assert await told() == [f"agency housing has not fetched for {hours:.1f} hours: 2 sections wait."]
    await housing.fetch()
    clock.now_ms += HOUR_MS // 12
    assert len(await told()) == 1
    clock.now_ms += 23 * HOUR_MS
    assert len(await told()) == 1
    clock.now_ms += HOUR_MS
    assert len(await told()) == 2


async def test_a_slow_reader_holds_nobody_up(enfield: Node, housing: Fetcher, desk: Desk) -> None:
    large = msgspec.msgpack.encode({"text": "x" * 900_000})
    dwp = await add(enfield, "dwp")
    for _ in range(4):
        await send(enfield, desk.borough, parts=(("housing", ("housing",)),), content=large)
    await offered(enfield, 4)
    _, writer = await asyncio.open_connection("127.0.0.1", int(housing.url.rpartition(":")[2]))
    head = f"GET /v1/agency/sections HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {housing.token}\r\n\r\n"
    writer.write(head.encode())  # and nothing is read
    sent = await send(enfield, desk.borough)
    assert await dwp.takes() == ["subject"]
    assert await rungs(enfield, sent, "dwp") == {"subject": "delivered"}
    assert len((await housing.fetch())["items"]) == 6
    writer.close()


async def test_nothing_of_a_section_is_in_the_log(
    enfield: Node, housing: Fetcher, desk: Desk, lines: io.StringIO
) -> None:
    await send(enfield, desk.borough)
    await housing.takes()
    assert CONTENT not in lines.getvalue()
    assert housing.token not in lines.getvalue()


# The cursor: whatever is offered, fetched, offered anew and acknowledged, a reader that goes on misses nothing.

FEED = FeedRow("agency", "ab" * 8, 0)


def test_a_cursor_reads_as_it_was_written() -> None:
    cursor = Cursor("ab" * 8, 3, 17)
    assert Cursor.read(str(cursor)) == cursor
    for text in ("", "x", "ab.1.2", str(cursor) + "\n", "AB" * 8 + ".1.2", "ab" * 8 + ".1.-2", "ab" * 8 + ".1.٣"):
        with pytest.raises(RequestInvalid):
            Cursor.read(text)


@given(st.lists(st.tuples(st.sampled_from(["urgent", "usual", "anew", "page"]), st.integers(0, 9), st.integers(1, 3))))
def test_a_reader_that_goes_on_misses_nothing(steps: list[tuple[str, int, int]]) -> None:
    head, there = 0, dict[int, OfferRow]()
    cursor, seen = Cursor(FEED.word, 0, 0), set[tuple[int, int]]()

    def page(most: int) -> list[OfferRow]:
        at = cursor.of(replace(FEED, head=head))
        past = [row for row in there.values() if row.number > (at.usual if row.rank else at.urgent)]
        return sorted(past, key=lambda row: (row.rank, row.number))[:most]

    for what, which, most in steps:
        if what in ("urgent", "usual"):
            head += 1
            there[len(there)] = OfferRow(len(there), "s", "agency", "e", int(what == "usual"), head, 0)
        elif what == "anew" and there:
            key = which % len(there)
            head += 1
            there[key] = replace(there[key], number=head)
        for row in page(most) if what == "page" else []:
            cursor = cursor.past(row)
            seen.add((row.delivery, row.number))
    while rows := page(2):
        for row in rows:
            cursor = cursor.past(row)
            seen.add((row.delivery, row.number))
    assert {(row.delivery, row.number) for row in there.values()} <= seen
