"""A directory that goes back, stands still, is not signed or never ends: nothing is taken from it, and peers go on."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web as http
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from exchange.directory.body import write_file
from exchange.directory.changes import add_key, change_root, remove_key, targets_to_change
from exchange.directory.metadata import list_card
from exchange.node.directory import Directory, wait_ms
from exchange.node.errors import DirectoryRefused
from exchange.node.peer_client import PeerClient
from exchange.store.directory import DirectoryRow, directory_metadata
from tests.directory.office import DAY_MS, Office, Web, card_bytes, holder, served
from tests.node.directories import alarms, joined, refreshed, refused, shown, trusting
from tests.node.handmade import Borough
from tests.node.pair import NOW_MS, Clock, Node, until

CAMDEN, ISLINGTON = "E09000007", "E09000019"


@pytest.fixture
def office(tmp_path: Path, clock: Clock) -> Office:
    return Office(tmp_path / "office", clock)


@pytest.fixture
async def web(office: Office) -> AsyncIterator[Web]:
    async with served(office) as made:
        yield made


@pytest.fixture
async def node(tmp_path: Path, clock: Clock, office: Office, web: Web, camden: Borough) -> AsyncIterator[Node]:
    """A node that has joined, and to which the directory's word suffices; Camden is listed."""
    async with trusting(tmp_path, clock, directory="suffices") as made:
        office.release(await made.proven_card(), camden.card())
        await joined(made, web, office)
        yield made


@pytest.fixture
def islington(clock: Clock) -> Borough:
    """Whom an attacker would like to be listed."""
    return Borough("exchange.islington.example", ISLINGTON, clock)


async def nothing_was_taken(node: Node, camden: Borough, islington: Borough, code: str, web: Web) -> None:
    """The refresh is refused, people are told once, and peers are as before."""
    problem = await refused(node)
    assert problem["code"] == "directory-refused", problem
    document = await shown(node)
    assert (document["state"], document["problem"]) == ("refused", code), document
    assert document["problem_since"]
    await refused(node)
    assert [alarm["origin"] for alarm in await alarms(node, "directory-refused")] == [web.url]
    assert await node.trust(camden.origin) == "verified"
    assert (await node.local("GET", f"/v1/peers/{islington.origin}"))[0] == 404
    assert (await node.local("GET", f"/v1/peers/{camden.origin}"))[1]["listed_by"] is None


def signed(part: Metadata[Any], *holders: Any) -> bytes:
    """A part, signed by these and nobody else."""
    part.signatures.clear()
    for one in holders:
        part.sign(one.signer, append=True)
    return part.to_bytes()


# An attack takes the body, what it published before and what it published since; it says what is served instead.
Served = dict[str, bytes | None]
Attack = Callable[[Office, dict[str, bytes]], Served]


def timestamp_of(office: Office, snapshot: bytes, version: int, **changes: Any) -> bytes:
    """A timestamp such as a thief of the online key makes."""
    number = Metadata[Snapshot].from_bytes(snapshot).signed.version
    meta = MetaFile.from_data(number, snapshot, ["sha256"])
    timestamp = Timestamp(version=version, expires=office.part("timestamp").signed.expires, snapshot_meta=meta)
    for name, value in changes.items():
        setattr(timestamp, name, value)
    return signed(Metadata(timestamp), office.online)


def the_timestamp_of_before(office: Office, before: dict[str, bytes]) -> Served:
    return {"metadata/timestamp.json": before["metadata/timestamp.json"]}


def the_snapshot_of_before(office: Office, before: dict[str, bytes]) -> Served:
    """By a thief of the online key: a new timestamp for the snapshot of before."""
    return {"metadata/timestamp.json": timestamp_of(office, before["metadata/1.snapshot.json"], 9)}


def the_listing_of_before(office: Office, before: dict[str, bytes]) -> Served:
    """By a thief of the online key: a new snapshot of the listing of before."""
    snapshot = Snapshot(version=9, expires=office.part("snapshot").signed.expires, meta={"targets.json": MetaFile(1)})
    data = signed(Metadata(snapshot), office.online)
    return {"metadata/9.snapshot.json": data, "metadata/timestamp.json": timestamp_of(office, data, 9)}


def parts_of_two_states(office: Office, before: dict[str, bytes]) -> Served:
    return {"metadata/3.targets.json": before["metadata/1.targets.json"]}


def a_snapshot_of_another_state(office: Office, before: dict[str, bytes]) -> Served:
    return {"metadata/3.snapshot.json": before["metadata/1.snapshot.json"]}


def a_listing_signed_by_one(office: Office, before: dict[str, bytes]) -> Served:
    return {"metadata/3.targets.json": signed(office.part("targets"), office.targets_holders[0])}


def a_listing_signed_twice_by_one(office: Office, before: dict[str, bytes]) -> Served:
    document = json.loads(signed(office.part("targets"), office.targets_holders[0]))
    document["signatures"] *= 2
    return {"metadata/3.targets.json": json.dumps(document).encode()}


def a_listing_signed_by_strangers(office: Office, before: dict[str, bytes]) -> Served:
    return {"metadata/3.targets.json": signed(office.part("targets"), holder("x"), holder("y"))}


def a_listing_signed_by_root_keys(office: Office, before: dict[str, bytes]) -> Served:
    return {"metadata/3.targets.json": signed(office.part("targets"), *office.root_holders)}


def a_listing_that_was_altered(office: Office, before: dict[str, bytes]) -> Served:
    document = json.loads(office.part("targets").to_bytes())
    document["signed"]["targets"][f"{ISLINGTON}.json"]["length"] += 1
    return {"metadata/3.targets.json": json.dumps(document).encode()}


def a_timestamp_signed_by_a_stranger(office: Office, before: dict[str, bytes]) -> Served:
    return {"metadata/timestamp.json": signed(office.part("timestamp"), holder("x"))}


def a_card_of_another(office: Office, before: dict[str, bytes]) -> Served:
    info = office.part("targets").signed.targets[f"{ISLINGTON}.json"]
    other = next(data for path, data in office.files().items() if CAMDEN in path)
    return {f"targets/{info.hashes['sha256']}.{ISLINGTON}.json": other[: info.length].ljust(info.length)}


def a_root_without_the_threshold_of_before(office: Office, before: dict[str, bytes]) -> Served:
    """Strangers make themselves keyholders, with the help of one who was."""
    root: Root = office.part("root").signed
    root.version += 1
    strangers = [holder("x"), holder("y")]
    for one in strangers:
        root.add_key(one.file.key(), "root")
        root.add_key(one.file.key(), "targets")
    return {"metadata/2.root.json": signed(Metadata(root), office.root_holders[0], *strangers)}


def a_root_that_its_own_keyholders_did_not_sign(office: Office, before: dict[str, bytes]) -> Served:
    root: Root = office.part("root").signed
    root.version += 1
    for one in office.root_holders:
        root.revoke_key(one.file.key().keyid, "root")
    for one in (holder("x"), holder("y")):
        root.add_key(one.file.key(), "root")
    return {"metadata/2.root.json": signed(Metadata(root), *office.root_holders)}


def a_root_that_skips_a_version(office: Office, before: dict[str, bytes]) -> Served:
    root: Root = office.part("root").signed
    root.version += 2
    return {"metadata/2.root.json": signed(Metadata(root), *office.root_holders)}


def metadata_that_is_too_large(office: Office, before: dict[str, bytes]) -> Served:
    return {"metadata/timestamp.json": b"{" + b" " * (17 * 1024)}


def metadata_that_is_too_deep(office: Office, before: dict[str, bytes]) -> Served:
    return {"metadata/timestamp.json": b"[" * 15_000}


def metadata_that_is_none(office: Office, before: dict[str, bytes]) -> Served:
    return {"metadata/timestamp.json": b"<html>Please log in</html>"}


def metadata_of_another_kind(office: Office, before: dict[str, bytes]) -> Served:
    return {"metadata/timestamp.json": office.part("targets").to_bytes()}


ATTACKS: list[tuple[Attack, str]] = [
    (the_timestamp_of_before, "rolled-back"),
    (the_snapshot_of_before, "rolled-back"),
    (the_listing_of_before, "rolled-back"),
    (parts_of_two_states, "rolled-back"),
    (a_snapshot_of_another_state, "altered"),
    (a_listing_signed_by_one, "not-signed"),
    (a_listing_signed_twice_by_one, "unreadable"),
    (a_listing_signed_by_strangers, "not-signed"),
    (a_listing_signed_by_root_keys, "not-signed"),
    (a_listing_that_was_altered, "not-signed"),
    (a_timestamp_signed_by_a_stranger, "not-signed"),
    (a_card_of_another, "altered"),
    (a_root_without_the_threshold_of_before, "not-signed"),
    (a_root_that_its_own_keyholders_did_not_sign, "not-signed"),
    (a_root_that_skips_a_version, "rolled-back"),
    (metadata_that_is_too_large, "too-large"),
    (metadata_that_is_too_deep, "unreadable"),
    (metadata_that_is_none, "unreadable"),
    (metadata_of_another_kind, "unreadable"),
]


@pytest.mark.parametrize(("attack", "code"), ATTACKS, ids=lambda item: getattr(item, "__name__", item))
async def test_from_a_directory_that_serves_this_nothing_is_taken(
    node: Node, office: Office, web: Web, camden: Borough, islington: Borough, attack: Attack, code: str
) -> None:
    before = office.files()
    office.release(camden.card())
    # The node has seen the second state; the third one is attacked.
    await refreshed(node)
    office.release(islington.card())
    web.instead = attack(office, before)
    await nothing_was_taken(node, camden, islington, code, web)
    # Once the directory is itself again, the node takes what it lists.
    web.instead.clear()
    if attack is the_listing_of_before:
        # Of a thief of the online key its timestamps must be got rid of too: they may lie far ahead.
        office.new_online_key()
    document = await refreshed(node)
    assert (document["state"], document["problem_since"]) == ("fresh", None)
    assert await node.trust(islington.origin) == "verified"


async def test_a_directory_that_stands_still_is_refused_when_it_has_expired(
    node: Node, office: Office, web: Web, camden: Borough, islington: Borough, clock: Clock
) -> None:
    web.instead = {"metadata/timestamp.json": office.files()["metadata/timestamp.json"]}
    office.release(islington.card())
    await refreshed(node)
    clock.now_ms += 7 * DAY_MS
    await nothing_was_taken(node, camden, islington, "expired", web)


async def test_a_directory_that_cannot_be_reached_is_refused_only_when_what_it_said_has_expired(
    node: Node, office: Office, web: Web, camden: Borough, islington: Borough, clock: Clock
) -> None:
    async def away(_: str) -> http.StreamResponse:
        return http.Response(status=503)

    web.bend = away
    problem = await refused(node)
    assert problem["code"] == "try-later"
    assert (await shown(node))["state"] == "unreachable"
    assert await alarms(node, "directory-refused") == []
    assert (await node.local("GET", f"/v1/peers/{camden.origin}"))[1]["listed_by"] == web.url
    clock.now_ms += 7 * DAY_MS
    await nothing_was_taken(node, camden, islington, "expired", web)


async def test_a_clock_that_is_set_back_does_not_revive_what_has_expired(
    node: Node, office: Office, web: Web, camden: Borough, islington: Borough, clock: Clock
) -> None:
    clock.now_ms += 6 * DAY_MS
    office.publish(renew_only=True)
    await refreshed(node)
    # A timestamp that the thief of the online key made to end before the node's last refresh.
    ends = office.now - timedelta(hours=1)
    snapshot = office.files()["metadata/2.snapshot.json"]
    web.instead = {"metadata/timestamp.json": timestamp_of(office, snapshot, 9, expires=ends)}
    clock.now_ms = NOW_MS
    await nothing_was_taken(node, camden, islington, "expired", web)


@pytest.mark.parametrize("path", ["metadata/timestamp.json", "metadata/2.root.json"])
async def test_data_that_do_not_end_are_not_read_to_the_end(
    node: Node, office: Office, web: Web, camden: Borough, islington: Borough, path: str
) -> None:
    sent = 0

    async def endless(asked: str) -> http.StreamResponse | None:
        if asked != path:
            return None
        return Endless()

    class Endless(http.StreamResponse):
        async def prepare(self, request: Any) -> Any:
            nonlocal sent
            writer = await super().prepare(request)
            try:
                while True:
                    await self.write(b" " * 65_536)
                    sent += 65_536
            except (ConnectionError, OSError):
                pass
            return writer

    web.bend = endless
    await nothing_was_taken(node, camden, islington, "too-large", web)
    assert sent < 64 * 1024 * 1024


@pytest.mark.slow
async def test_a_server_that_does_not_answer_in_time_counts_as_out_of_reach(
    node: Node, office: Office, web: Web
) -> None:
    release = asyncio.Event()

    async def slow(_: str) -> http.StreamResponse | None:
        await release.wait()
        return None

    web.bend = slow
    problem = await refused(node)
    release.set()
    assert problem["code"] == "try-later"
    assert "in time" in problem["message"]


async def test_a_redirect_is_not_followed(node: Node, office: Office, web: Web) -> None:
    async def away(_: str) -> http.StreamResponse | None:
        return http.Response(status=302, headers={"location": f"{web.url}/elsewhere"})

    web.bend = away
    web.asked.clear()
    assert (await refused(node))["code"] == "try-later"
    assert not any("elsewhere" in path for path in web.asked)


async def test_what_is_listed_and_is_no_card_is_shown_and_leads_to_nothing(
    node: Node, office: Office, web: Web, camden: Borough, islington: Borough
) -> None:
    staged = targets_to_change(office.body, office.body.published(), office.now)
    for name in ("../../etc/passwd", "E09000019.json/x", "a\x00b\x1b[2J.json", "x" * 300):
        staged.signed.targets[name] = TargetFile.from_data(name, b"x", ["sha256"])
    other, nobody = card_bytes(islington.card()), b"not a card"
    for area, data in (("E09000003", other), ("E09000005", nobody)):
        list_card(staged.signed, area, data)
        office.body.stage_card(area, data)
    office.body.stage(staged)
    office.sign()
    # No body of ours would publish that; one that lost its keys might.
    for path, data in forged(office, staged).items():
        write_file(office.out / path, data)
    document = await refreshed(node)
    notes = {item["area"]: item["note"] for item in document["items"] if item["note"]}
    assert notes["E09000003"] == "the card is of E09000019, and listed for E09000003"
    assert notes["E09000005"] == "what is listed is not a card"
    assert notes["../../etc/passwd"] == "that is no name for a card"
    assert "a?b?[2J.json" in notes
    assert len(notes) == 6
    assert await node.trust(camden.origin) == "verified"
    assert (await node.local("GET", f"/v1/peers/{islington.origin}"))[0] == 404


def forged(office: Office, targets: Metadata[Targets]) -> dict[str, bytes]:
    """What a body with all its keys can publish of some targets, checking nothing."""
    version = targets.signed.version
    expires = office.part("snapshot").signed.expires
    snapshot = Metadata(Snapshot(version=version, expires=expires, meta={"targets.json": MetaFile(version)}))
    data = signed(snapshot, office.online)
    files = {
        f"targets/{info.hashes['sha256']}.{path}": (office.body.staged / "cards" / path).read_bytes()
        for path, info in targets.signed.targets.items()
        if path.startswith("E0900") and path.endswith(".json") and (office.body.staged / "cards" / path).is_file()
    }
    files[f"metadata/{version}.targets.json"] = signed(targets, *office.targets_holders)
    files[f"metadata/{version}.snapshot.json"] = data
    return {**files, "metadata/timestamp.json": timestamp_of(office, data, version)}


async def test_a_node_that_stops_does_not_wait_for_a_directory_that_does_not_answer(
    node: Node, office: Office, web: Web, clock: Clock
) -> None:
    async def never(_: str) -> http.StreamResponse | None:
        await asyncio.Event().wait()
        return None

    web.bend = never
    clock.now_ms += 3_600_000
    web.asked.clear()
    client, stop = PeerClient(node.services), asyncio.Event()
    running = asyncio.create_task(Directory(node.services, client, lambda *_: None).run(stop, 0.01))

    async def asked() -> bool:
        return bool(web.asked)

    await until("the directory was asked", asked)
    stop.set()
    async with asyncio.timeout(3):
        await running
    await client.close()

    async def nothing_runs() -> bool:
        return not any("within" in str(task.get_coro()) for task in asyncio.all_tasks())

    await until("nothing is fetched any more", nothing_runs, 3)


# Keys that change.


async def test_new_keyholders_are_followed_where_the_old_ones_signed(
    node: Node, office: Office, web: Web, islington: Borough
) -> None:
    old = office.targets_holders[0]
    new = holder("dora")

    def change(root: Root) -> None:
        remove_key(root, "targets", "anna")
        add_key(root, "targets", new.file.key())

    change_root(office.body, office.now, "test", change)
    office.targets_holders[0] = new
    office.renew("targets")
    office.sign()
    office.publish()
    await refreshed(node)
    office.release(islington.card())
    await refreshed(node)
    assert await node.trust(islington.origin) == "verified"
    # The one who left signs for nothing any more.
    web.instead = {"metadata/3.targets.json": signed(office.part("targets"), old, office.targets_holders[1])}
    assert old.file.key().keyid not in office.part("root").signed.roles["targets"].keyids


async def test_what_a_thief_of_the_online_key_made_counts_for_nothing_after_it_was_replaced(
    node: Node, office: Office, web: Web, camden: Borough, islington: Borough
) -> None:
    stolen = office.online
    # The thief makes a timestamp far ahead, so that genuine ones look old.
    snapshot = office.files()["metadata/1.snapshot.json"]
    web.instead = {"metadata/timestamp.json": timestamp_of(office, snapshot, 1000)}
    await refreshed(node)
    web.instead.clear()
    assert (await refused(node))["code"] == "directory-refused"
    office.new_online_key()
    office.release(islington.card())
    await refreshed(node)
    assert await node.trust(islington.origin) == "verified"
    forged = office.part("timestamp")
    forged.signed.version = 2000
    web.instead = {"metadata/timestamp.json": signed(forged, stolen)}
    assert (await refused(node))["code"] == "directory-refused"
    assert (await shown(node))["problem"] == "not-signed"


# What is kept.


async def test_a_node_that_starts_again_still_knows_what_it_has_seen(
    node: Node, office: Office, web: Web, camden: Borough, clock: Clock
) -> None:
    before = office.files()
    office.release(camden.card())
    await refreshed(node)
    web.instead = {"metadata/timestamp.json": before["metadata/timestamp.json"]}
    again = PeerClient(node.services)
    with pytest.raises(DirectoryRefused) as found:
        await Directory(node.services, again, lambda *_: None).refresh()
    await again.close()
    assert found.value.problem == "rolled-back"


async def test_what_was_verified_is_kept_though_what_follows_fails(node: Node, office: Office, web: Web) -> None:
    before = await node.services.store.read(directory_metadata)
    office.new_online_key()
    web.instead = {"metadata/2.snapshot.json": None}
    assert (await refused(node))["code"] == "try-later"
    after = await node.services.store.read(directory_metadata)
    assert Metadata[Root].from_bytes(after["root"]).signed.version == 2
    assert Metadata[Timestamp].from_bytes(after["timestamp"]).signed.version == 2
    assert after["targets"] == before["targets"]


async def test_a_replica_that_was_slower_does_not_undo_what_another_kept(
    node: Node, office: Office, web: Web, camden: Borough
) -> None:
    gate, reached = asyncio.Event(), asyncio.Event()
    old = office.files()["metadata/timestamp.json"]

    async def held_up(path: str) -> http.StreamResponse | None:
        if path == "metadata/timestamp.json" and not reached.is_set():
            reached.set()
            await gate.wait()
            return http.Response(body=old)
        return None

    web.bend = held_up
    other = PeerClient(node.services)
    slow = asyncio.create_task(Directory(node.services, other, lambda *_: None).refresh())
    await reached.wait()
    office.release(camden.card())
    await refreshed(node)
    gate.set()
    await slow
    await other.close()
    files = await node.services.store.read(directory_metadata)
    assert Metadata[Timestamp].from_bytes(files["timestamp"]).signed.version == 2


def test_it_is_asked_sooner_where_something_failed_or_expires_soon() -> None:
    hour = 3_600_000
    row = DirectoryRow("u", None, "[]", None, "[]", "me", 0, checked_at_ms=NOW_MS, expires_at_ms=NOW_MS + 7 * DAY_MS)
    assert wait_ms(row, hour) == hour
    assert wait_ms(row, 168 * hour) == 7 * DAY_MS // 4
    assert wait_ms(dataclasses.replace(row, problem="expired"), hour) == hour // 6
    assert wait_ms(dataclasses.replace(row, expires_at_ms=NOW_MS + 40 * 60_000), hour) == 10 * 60_000
    assert wait_ms(dataclasses.replace(row, expires_at_ms=NOW_MS), hour) == hour // 6
