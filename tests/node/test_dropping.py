"""A folder for an agency's sections: whole files, each once, where nobody else can read them."""

import grp
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from exchange import crash_points
from exchange.node.agency_watch import AgencyWatch
from exchange.node.dropping import FolderUnusable, put, waiting_files, why_not
from exchange.node.ways import Folder
from tests.node.fetcher import send
from tests.node.handmade import CONTENT, Desk
from tests.node.pair import Clock, Node, until

EVENT = "evt_" + "a" * 32
BODY = b'{"id":1}'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def folder(place: Path) -> Folder:
    return Folder(directory=str(place))


def empty(place: Path) -> None:
    for path in place.iterdir():
        path.unlink()


def age(place: Path, days: int) -> None:
    for path in place.iterdir():
        os.utime(path, (path.stat().st_mtime - days * 86_400,) * 2)


def there(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_a_file_has_the_events_id_for_its_name_and_is_for_the_nodes_account(folder: Folder, place: Path) -> None:
    put(folder, EVENT, BODY)
    put(folder, EVENT, BODY)
    assert there(place) == {f"{EVENT}.json": BODY}
    assert (place / f"{EVENT}.json").stat().st_mode & 0o777 == 0o600


def test_a_group_that_was_named_may_read_it(place: Path) -> None:
    name = grp.getgrgid(os.getgid()).gr_name
    place.chmod(0o750)
    put(Folder(directory=str(place), group=name), EVENT, BODY)
    found = (place / f"{EVENT}.json").stat()
    assert (found.st_mode & 0o777, found.st_gid) == (0o640, os.getgid())


@pytest.mark.parametrize("mode", [0o701, 0o704, 0o755, 0o750, 0o770])
def test_a_folder_that_others_can_open_is_refused_unless_that_is_allowed(place: Path, mode: int) -> None:
    place.chmod(mode)
    with pytest.raises(FolderUnusable):
        put(Folder(directory=str(place)), EVENT, BODY)
    assert there(place) == {}
    put(Folder(directory=str(place), shared=True), EVENT, BODY)
    assert there(place) == {f"{EVENT}.json": BODY}


def test_nothing_is_written_through_symlinks(tmp_path: Path, folder: Folder, place: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"theirs")
    (place / f"{EVENT}.json").symlink_to(target)
    with pytest.raises(FolderUnusable):
        put(folder, EVENT, BODY)
    assert target.read_bytes() == b"theirs"
    (tmp_path / "link").symlink_to(place)
    (tmp_path / "above").symlink_to(tmp_path)
    for path in (tmp_path / "link", tmp_path / "above" / "folder"):
        with pytest.raises(FolderUnusable, match="symlink"):
            put(Folder(directory=str(path)), "evt_" + "b" * 32, BODY)


def test_what_is_missing_or_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name, why in (("missing", "is not there"), ("file", "is no folder, or a symlink"), ("file/x", "is no folder")):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - what is in it is looked at
            put(Folder(directory=str(tmp_path / name)), EVENT, BODY)
        assert why in why_not(caught.value)


@pytest.mark.parametrize("point", ["drop.beside", "drop.in-place"])
def test_what_ends_in_between_leaves_one_whole_file_in_the_end(
    folder: Folder, place: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    class PowerCut(BaseException):
        pass

    def cut(at: str) -> None:
        if at == point:
            raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(crash_points, "reached", cut)
        with pytest.raises(PowerCut):
            put(folder, EVENT, BODY)
    assert set(there(place).values()) <= {BODY}
    put(folder, EVENT, BODY)
    assert there(place) == {f"{EVENT}.json": BODY}


def test_what_lies_there_is_counted_and_what_a_crash_left_is_swept(folder: Folder, place: Path) -> None:
    put(folder, EVENT, BODY)
    left, fresh = place / f".{EVENT}.{'0' * 16}.new", place / f".{EVENT}.{'1' * 16}.new"
    for path in (left, fresh, place / "notes.txt"):
        path.write_bytes(b"half")
    os.utime(left, (0, 0))
    os.utime(place / f"{EVENT}.json", (1000, 1000))
    now_s = fresh.stat().st_mtime
    assert waiting_files(folder, now_s) == (1, now_s - 1000)
    assert set(there(place)) == {f"{EVENT}.json", fresh.name, "notes.txt"}


# At a node


@pytest.fixture
async def known(enfield: Node, desk: Desk, clock: Clock) -> Node:
    clock.run()
    await enfield.know(desk.borough)
    return enfield


async def add(node: Node, **folder: Any) -> tuple[int, Any]:
    return await node.local("POST", "/v1/agencies", {"kind": "housing", "folder": folder})


async def reached(node: Node, message_id: str, rung: str = "delivered") -> None:
    async def is_there() -> bool:
        found = (await node.status(message_id))["sections"]
        return {item["rung"] for item in found if item["agency"] == "housing"} == {rung}

    await until(f"{message_id} is {rung}", is_there)


async def test_sections_are_put_into_the_folder_and_are_delivered_then(known: Node, desk: Desk, place: Path) -> None:
    status, added = await add(known, directory=str(place))
    assert (status, added["way"], added["folder"], added["secret"], added["token"]) == (
        201,
        "drop",
        str(place),
        None,
        None,
    )
    sent = await send(known, desk.borough)
    await reached(known, sent)
    events = [json.loads(text) for text in there(place).values()]
    assert {name.removesuffix(".json") for name in there(place)} == {event["id"] for event in events}
    assert sorted(event["data"]["section"] for event in events) == ["housing", "subject"]
    assert events[0]["data"]["content"] == {"text": CONTENT}
    attempts = (await known.local("GET", f"/v1/messages/{sent}/attempts"))[1]["items"]
    assert [item["accepted"] for item in attempts] == [True, True]


async def test_a_folder_that_fails_is_tried_again_and_says_why(known: Node, desk: Desk, place: Path) -> None:
    await add(known, directory=str(place))
    os.rmdir(place)
    sent = await send(known, desk.borough)

    async def says_why() -> bool:
        return bool((await known.status(sent))["last_error"] == "the folder of agency housing is not there")

    await until("it says why", says_why)
    os.mkdir(place)
    os.chmod(place, 0o777)

    async def says_other() -> bool:
        return "open to others" in str((await known.status(sent))["last_error"])

    await until("it says why", says_other)
    assert there(place) == {}
    os.chmod(place, 0o700)
    await reached(known, sent)
    assert len(there(place)) == 2


async def test_what_a_reader_took_is_not_put_there_again_unless_it_is_replayed(
    known: Node, desk: Desk, place: Path
) -> None:
    _, added = await add(known, directory=str(place))
    sent = await send(known, desk.borough)
    await reached(known, sent)
    before = there(place)
    empty(place)
    await known.local("POST", f"/v1/agencies/{added['id']}/replay", {"message_id": sent})

    async def is_back() -> bool:
        return there(place) == before

    await until("it is there again", is_back)
    assert (await known.local("POST", f"/v1/agencies/{added['id']}/test"))[1]["ok"]
    assert len(there(place)) == 3


async def test_a_folder_must_be_fit_when_it_is_named(known: Node, tmp_path: Path, place: Path) -> None:
    os.symlink(place, tmp_path / "link")
    os.mkdir(tmp_path / "open")
    os.chmod(tmp_path / "open", 0o755)
    inside = known.directory / "folder"
    os.mkdir(inside, 0o700)
    for path in ("relative", "/", str(tmp_path / "link"), str(tmp_path / "open"), str(inside), str(known.directory)):
        status, document = await add(known, directory=path)
        assert (status, document["code"]) == (400, "request-invalid"), path
    for path in (str(tmp_path / "missing"), str(place / ".." / "folder"), f"{place}\0"):
        status, document = await add(known, directory=path)
        assert (status, document["code"]) == (400, "request-invalid"), path
    assert (await add(known, directory=str(tmp_path / "open"), shared=True))[0] == 201


async def test_the_admins_are_told_of_files_that_nobody_takes(known: Node, desk: Desk, place: Path) -> None:
    await add(known, directory=str(place))
    await reached(known, await send(known, desk.borough))
    watch = AgencyWatch(known.services, None)  # type: ignore[arg-type]
    await watch.look_at_folders()
    assert await known.alarms(known.origin) == []
    age(place, 4)
    for _ in range(2):
        await watch.look_at_folders()
    (alarm,) = await known.alarms(known.origin)
    assert (alarm["kind"], alarm["detail"]) == (
        "agency-not-fetching",
        "agency housing has not taken files for 4 days: 2 lie there.",
    )


async def test_nothing_of_a_section_is_in_the_log(known: Node, desk: Desk, place: Path, lines: io.StringIO) -> None:
    await add(known, directory=str(place))
    await reached(known, await send(known, desk.borough))
    assert CONTENT not in lines.getvalue()
