"""Two boroughs of several processes each, behind balancers, while processes are killed and the database restarts."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import databases
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, introduce, until
from tests.processes.receiver import HANG, Receiver
from tests.processes.replicas import FORM, PLACES, Crowd, Senders, Watcher, check_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KILLS = 8


def crowds(town: Town, sizes: tuple[int, int]) -> tuple[Crowd, Crowd, Receiver]:
    """Hackney and Enfield, running and registered with one another; Enfield with all agencies."""
    made = []
    for slug, area, size in (("hackney", HACKNEY, sizes[0]), ("enfield", ENFIELD, sizes[1])):
        made.append(Crowd.of(town, town.borough(slug, area), size).start())
    hackney, enfield = made
    introduce(hackney.any, enfield.any)
    receiver = town.receiver()
    enfield.any.add_agencies(receiver)
    return hackney, enfield, receiver


@pytest.fixture(scope="module")
def town(postgresql_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    before, databases.server = databases.server, postgresql_server
    made = Town(tmp_path_factory.mktemp("town"), tmp_path_factory.mktemp("templates"))
    yield made
    made.end()
    databases.server = before


@pytest.fixture(scope="module")
def boroughs(town: Town) -> tuple[Crowd, Crowd, Receiver]:
    return crowds(town, (2, 3))


def test_processes_are_killed_while_others_go_on_and_every_message_arrives_once(
    boroughs: tuple[Crowd, Crowd, Receiver],
) -> None:
    seed = int(os.environ.get("CRASH_SEED", random.SystemRandom().randrange(2**32)))
    print(f"CRASH_SEED={seed}")  # noqa: T201 - shown where the test fails
    chance = random.Random(seed)
    hackney, enfield, receiver = boroughs
    senders, watcher = Senders(hackney), Watcher([hackney.store, enfield.store])
    with watcher.watching(), senders.sending():
        for _ in range(KILLS):
            crowd = chance.choice((hackney, enfield))
            victim = chance.choice(crowd.processes)
            time.sleep(chance.uniform(0, 0.5))  # when to kill is what is being tried here
            victim.kill()
            sent = len(senders.ids)
            until("the others go on", lambda sent=sent: len(senders.ids) >= sent + 2)
            victim.start()

    assert len(senders.ids) > KILLS
    check_all(hackney, enfield, receiver, senders.ids)
    assert watcher.looks > KILLS
    assert watcher.shared == [], "two processes worked on a lane at the same time"
    for crowd in (hackney, enfield):
        assert set(crowd.balancer.given) == {process.port for process in crowd.processes}


def test_every_process_shows_the_same_and_says_who_is_there(boroughs: tuple[Crowd, Crowd, Receiver]) -> None:
    for crowd in boroughs[:2]:
        cards = {process.api("GET", "/v1/card")["serial"] for process in crowd.processes}
        assert len(cards) == 1
        for process in crowd.processes:
            names = [row["name"] for row in process.api("GET", "/v1/health")["replicas"]]
            addresses = {name.partition(":")[2] for name in names}
            assert {f"127.0.0.1:{one.port}" for one in crowd.processes} <= addresses


def test_who_waits_at_one_process_hears_of_what_another_did(boroughs: tuple[Crowd, Crowd, Receiver]) -> None:
    hackney, _, _ = boroughs
    first, second = hackney.processes
    message_id = first.send(FORM, ENFIELD)
    assert second.status(message_id, "delivered", 60)["reached"]


def test_a_killed_process_that_does_not_come_back_leaves_its_claims_to_the_others(
    boroughs: tuple[Crowd, Crowd, Receiver],
) -> None:
    hackney, enfield, receiver = boroughs
    receiver.answers["police"] = HANG
    before = len([request for request in receiver.requests if request.kind == "police"])
    message_id = hackney.any.send(FORM, ENFIELD)
    until(
        "the police are called",
        lambda: len([request for request in receiver.requests if request.kind == "police"]) > before,
    )
    claimed = "SELECT split_part(claimed_by, '-', 1) FROM outbox WHERE lane = 'agency:police' AND lease_until_ms > 0"
    ((holder,),) = databases.rows(enfield.store, claimed)
    names = dict(databases.rows(enfield.store, "SELECT id, name FROM replicas WHERE name IS NOT NULL"))
    victim = next(one for one in enfield.processes if names[holder].endswith(f":{one.port}"))
    victim.kill()
    receiver.answers.clear()

    assert enfield.any.status(message_id, "delivered", 60)["reached"]
    assert databases.rows(enfield.store, claimed) == []
    police = {section for section, kind in PLACES if kind == "police"}
    assert {one.section for one in receiver.accepted("police", message_id)} == police
    victim.start()


def test_keys_that_one_process_rotated_stop_the_others_until_they_have_them(
    boroughs: tuple[Crowd, Crowd, Receiver],
) -> None:
    hackney, enfield, _ = boroughs
    first, second = hackney.processes
    first.ask("keys", "rotate", "--yes", "--revocation", first.directory / "revocation-2.json")
    assert second.process is not None
    assert second.process.wait(60) != 0
    assert "keys-superseded" in second.log.read_text() or "rotated the node's signing keys" in second.log.read_text()

    (second.directory / "keystore.json").write_bytes((first.directory / "keystore.json").read_bytes())
    second.start()
    message_id = second.send(FORM, ENFIELD)
    assert second.status(message_id, "delivered", 60)["reached"]
    assert enfield.any.ask("alarms") == {"items": []}


def test_the_server_restarts_again_and_again_under_load_and_nothing_is_lost_or_doubled(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("restarted")
    before, databases.server = databases.server, databases.start_server(data)
    town = Town(tmp_path, tmp_path_factory.mktemp("templates"))
    try:
        hackney, enfield, receiver = crowds(town, (2, 2))
        senders = Senders(hackney)
        with senders.sending():
            for _ in range(4):
                sent = len(senders.ids)
                until("more is sent", lambda sent=sent: len(senders.ids) >= sent + 5)
                databases.take_down(data, again=True)
        check_all(hackney, enfield, receiver, senders.ids)
    finally:
        town.end()
        # The one that was started last is not the one that would end with this process.
        databases.take_down(data, again=False)
        databases.server = before
