"""A node that has joined a directory: what its word leads to, and what it never does."""

import io
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from exchange.node.directory import Directory
from exchange.node.peer_client import PeerClient, Place
from exchange.node.peering import move
from exchange.node.trust import Standing
from exchange.store.tables import outbox
from exchange.store.transaction import Sql, Transaction
from tests.directory.office import DAY_MS, Office, Web, served
from tests.node.directories import alarms, join, joined, refreshed, trusting
from tests.node.handmade import Borough, Desk
from tests.node.pair import ENFIELD, Clock, Node, card_file, form

CAMDEN = "E09000007"


@pytest.fixture
def office(tmp_path: Path, clock: Clock) -> Office:
    return Office(tmp_path / "office", clock)


@pytest.fixture
async def web(office: Office) -> AsyncIterator[Web]:
    async with served(office) as made:
        yield made


@pytest.fixture
async def trusts(tmp_path: Path, clock: Clock, lines: object) -> AsyncIterator[Node]:
    """A node to which the directory's word suffices."""
    async with trusting(tmp_path, clock, directory="suffices") as node:
        yield node


async def peer(node: Node, borough: Borough) -> Any:
    status, document = await node.local("GET", f"/v1/peers/{borough.origin}")
    return document if status == 200 else None


async def listing(office: Office, node: Node, *boroughs: Borough) -> None:
    """Publish the node itself and boroughs."""
    office.release(await node.proven_card(), *(borough.card() for borough in boroughs))


def made_anew(borough: Borough) -> Borough:
    """The same borough with new keys and a new log."""
    other = Borough(borough.origin, borough.area, borough._now_ms)
    other.url = borough.url
    return other


# What is listed.


async def test_under_hint_a_listed_borough_appears_unverified_and_people_verify_it(
    enfield: Node, office: Office, web: Web, camden: Borough
) -> None:
    await listing(office, enfield, camden)
    document = await joined(enfield, web, office)
    assert document["state"] == "fresh"
    assert document["policy"] == "hint"
    assert document["own"] == "listed"
    assert [(item["area"], item["trust"], item["note"]) for item in document["items"]] == [
        (CAMDEN, "unverified", None),
        ("E09000010", "self", None),
    ]
    found = await peer(enfield, camden)
    assert found["trust"] == "unverified"
    assert found["listed_by"] == web.url
    assert found["verifications"] == []
    await refreshed(enfield)
    assert await enfield.trust(camden.origin) == "unverified"
    await enfield.know(camden)
    assert await enfield.trust(camden.origin) == "verified"


async def test_where_it_suffices_a_listed_borough_is_verified_and_that_is_recorded(
    trusts: Node, office: Office, web: Web, camden: Borough, desk: Desk
) -> None:
    await listing(office, trusts, camden)
    await joined(trusts, web, office)
    found = await peer(trusts, camden)
    assert found["trust"] == "verified"
    assert found["verified_how"] == "directory"
    assert [(row["fingerprint"], row["how"], row["who"]) for row in found["verifications"]] == [
        (camden.fingerprint, "directory", web.url)
    ]
    status, sent = await trusts.local("POST", f"/v1/messages/to/{CAMDEN}", data=form(CAMDEN, ENFIELD))
    assert status == 201, sent
    await trusts.reached(sent["id"], "received")


async def test_where_two_people_must_verify_the_directory_is_one_of_them_and_never_both(
    tmp_path: Path, clock: Clock, office: Office, web: Web, camden: Borough
) -> None:
    async with trusting(tmp_path, clock, directory="suffices", two_people=True) as node:
        await listing(office, node, camden)
        await joined(node, web, office)
        assert await node.trust(camden.origin) == "confirming"
        await refreshed(node)
        assert await node.trust(camden.origin) == "confirming"
        await node.know(camden)
        assert await node.trust(camden.origin) == "verified"


async def test_after_one_person_the_directory_is_the_second(
    tmp_path: Path, clock: Clock, office: Office, web: Web, camden: Borough
) -> None:
    async with trusting(tmp_path, clock, directory="suffices", two_people=True) as node:
        await node.know(camden)
        assert await node.trust(camden.origin) == "confirming"
        await listing(office, node, camden)
        await joined(node, web, office)
        assert await node.trust(camden.origin) == "verified"


async def test_networks_and_authority_of_listed_peers_are_those_that_the_admin_gave_when_joining(
    trusts: Node, office: Office, web: Web, camden: Borough
) -> None:
    await listing(office, trusts, camden)
    body = {"url": web.url, "root": json.loads(office.root()), "peer_networks": ["10.20.0.0/16"]}
    status, _ = await trusts.local("POST", "/v1/directory", body)
    assert status == 201
    assert (await peer(trusts, camden))["networks"] == ["10.20.0.0/16"]


async def test_an_older_card_is_ignored_and_a_newer_one_is_taken(
    trusts: Node, office: Office, web: Web, camden: Borough
) -> None:
    old, new = camden.card(), camden.card(name="A newer name")
    office.release(await trusts.proven_card(), old)
    await trusts.local("POST", "/v1/peers", {"card": card_file(new), "fingerprint": camden.fingerprint})
    await joined(trusts, web, office)
    assert (await peer(trusts, camden))["serial"] == 2
    office.release(camden.card(name="The newest name"))
    await refreshed(trusts)
    assert (await peer(trusts, camden))["name"] == "The newest name"


async def test_in_place_of_a_card_that_has_expired_the_node_takes_the_one_that_is_served(
    trusts: Node, office: Office, web: Web, clock: Clock, camden: Borough, desk: Desk
) -> None:
    await listing(office, trusts, camden)
    clock.now_ms += 91 * DAY_MS
    office.publish(renew_only=True)
    camden.served = camden.card(name="The card of today")
    await joined(trusts, web, office)
    found = await peer(trusts, camden)
    assert (found["trust"], found["name"]) == ("verified", "The card of today")


async def test_a_card_that_has_expired_brings_nobody_if_another_identity_answers_at_its_url(
    trusts: Node, office: Office, web: Web, clock: Clock, camden: Borough, desk: Desk
) -> None:
    await listing(office, trusts, camden)
    clock.now_ms += 91 * DAY_MS
    office.publish(renew_only=True)
    camden.served = made_anew(camden).card()
    await joined(trusts, web, office)
    assert await peer(trusts, camden) is None


class Failing(PeerClient):
    """A client that fails as no client should."""

    async def fetch_card(self, place: Place) -> Any:
        raise UnicodeError("label empty or too long")


async def test_one_card_that_cannot_be_made_current_keeps_no_other_from_being_taken(
    trusts: Node, office: Office, web: Web, clock: Clock, camden: Borough, lines: io.StringIO
) -> None:
    await listing(office, trusts)
    await joined(trusts, web, office)
    soon = camden.now + timedelta(minutes=1)
    sutton = Borough("exchange.sutton.example", "E09000029", clock)
    office.release(camden.card(url="https://camden.example", expires_at=soon), sutton.card())
    clock.now_ms += 120_000
    document = await Directory(trusts.services, Failing(trusts.services), lambda *_: None).refresh()
    assert document["state"] == "fresh"
    assert [item["origin"] for item in document["items"] if item["area"] == CAMDEN] == [camden.origin]
    assert await trusts.trust(sutton.origin) == "verified"
    assert '"error": "UnicodeError"' in lines.getvalue()
    assert "label empty" not in lines.getvalue()


async def test_a_url_that_cannot_be_asked_keeps_no_directory_from_being_joined(
    trusts: Node, office: Office, web: Web, clock: Clock, camden: Borough
) -> None:
    sutton = Borough("exchange.sutton.example", "E09000029", clock)
    bad = camden.card(url="https://a..b", expires_at=camden.now + timedelta(minutes=1))
    office.release(await trusts.proven_card(), bad, sutton.card())
    clock.now_ms += 120_000
    assert (await joined(trusts, web, office))["state"] == "fresh"
    assert await trusts.trust(sutton.origin) == "verified"


async def test_what_fails_while_a_listing_is_applied_is_told_once_and_the_directory_is_not_called_fresh(
    trusts: Node,
    office: Office,
    web: Web,
    clock: Clock,
    camden: Borough,
    lines: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await listing(office, trusts, camden)
    await joined(trusts, web, office)

    def fail(_: object) -> Any:
        raise RuntimeError("words of whoever wrote the card")

    clock.now_ms += 60_000
    with monkeypatch.context() as broken:
        broken.setattr("exchange.node.directory.read_entries", fail)
        for _ in range(2):
            status, problem = await trusts.local("POST", "/v1/directory/refresh")
            assert (status, problem["code"]) == (403, "directory-refused")
    document = (await trusts.local("GET", "/v1/directory"))[1]
    assert (document["state"], document["problem"]) == ("refused", "not-applied")
    assert document["checked_at"] > document["refreshed_at"]
    assert len(await alarms(trusts, "directory-refused")) == 1
    assert await trusts.trust(camden.origin) == "verified"
    assert '"error": "RuntimeError"' in lines.getvalue()
    assert "whoever wrote" not in lines.getvalue()
    assert (await refreshed(trusts))["state"] == "fresh"


# Stops.


@pytest.mark.parametrize("first", ["verified by the directory", "verified by people"])
async def test_whom_people_suspended_the_directory_does_not_verify_again(
    trusts: Node, office: Office, web: Web, camden: Borough, first: str
) -> None:
    await listing(office, trusts, camden)
    if first == "verified by people":
        await trusts.know(camden)
    await joined(trusts, web, office)
    assert await trusts.trust(camden.origin) == "verified"
    await trusts.local("POST", f"/v1/peers/suspend/{camden.origin}")
    await refreshed(trusts)
    assert await trusts.trust(camden.origin) == "suspended"
    # Not under another identity either.
    office.release(made_anew(camden).card(), replace=True)
    await refreshed(trusts)
    assert await trusts.trust(camden.origin) == "suspended"


async def test_whom_people_removed_the_directory_does_not_bring_back_and_people_do(
    trusts: Node, office: Office, web: Web, camden: Borough
) -> None:
    await listing(office, trusts, camden)
    await joined(trusts, web, office)
    # A peer for which something waits is not removed; what waits for this one is the node's card.
    await trusts.services.store.write(_forget_what_waits)
    status, document = await trusts.local("DELETE", f"/v1/peers/{camden.origin}")
    assert status == 200, document
    await refreshed(trusts)
    assert await peer(trusts, camden) is None
    await trusts.know(camden, verified=False)
    await refreshed(trusts)
    assert await trusts.trust(camden.origin) == "unverified"
    await trusts.know(camden)
    assert await trusts.trust(camden.origin) == "verified"


async def _forget_what_waits(tx: Transaction) -> None:
    await tx.execute(Sql(delete(outbox)), {})


async def test_whose_log_forked_the_directory_does_not_verify_again_under_whatever_identity(
    trusts: Node, office: Office, web: Web, camden: Borough
) -> None:
    await listing(office, trusts, camden)
    await joined(trusts, web, office)
    await trusts.services.store.write(lambda tx: move(tx, camden.origin, Standing.fork))
    await refreshed(trusts)
    assert await trusts.trust(camden.origin) == "quarantined"
    await trusts.services.store.write(lambda tx: move(tx, camden.origin, Standing.revoke))
    office.release(made_anew(camden).card(), replace=True)
    await refreshed(trusts)
    assert await trusts.trust(camden.origin) == "revoked"


# Who is not listed any more.


async def test_whom_the_directory_alone_verified_is_suspended_when_it_lists_it_no_more(
    trusts: Node, office: Office, web: Web, camden: Borough
) -> None:
    await listing(office, trusts, camden)
    await joined(trusts, web, office)
    office.remove(CAMDEN)
    office.sign()
    office.publish()
    await refreshed(trusts)
    assert await trusts.trust(camden.origin) == "suspended"
    assert [alarm["origin"] for alarm in await alarms(trusts, "directory-removed")] == [camden.origin]
    await refreshed(trusts)
    assert len(await alarms(trusts, "directory-removed")) == 1
    # Listed again, it stays suspended: people have been told, and people decide.
    office.release(camden.card())
    await refreshed(trusts)
    assert await trusts.trust(camden.origin) == "suspended"


@pytest.mark.parametrize("policy", ["hint", "suffices"])
async def test_whom_people_verified_goes_on_when_it_is_listed_no_more_and_people_are_told_once(
    tmp_path: Path, clock: Clock, office: Office, web: Web, camden: Borough, policy: str
) -> None:
    async with trusting(tmp_path, clock, directory=policy) as node:
        await node.know(camden)
        await listing(office, node, camden)
        await joined(node, web, office)
        office.remove(CAMDEN)
        office.sign()
        office.publish()
        await refreshed(node)
        await refreshed(node)
        assert await node.trust(camden.origin) == "verified"
        assert len(await alarms(node, "directory-removed")) == 1


# Another identity.


async def test_a_new_identity_of_one_whom_the_directory_alone_verified_is_adopted(
    trusts: Node, office: Office, web: Web, camden: Borough
) -> None:
    await listing(office, trusts, camden)
    await joined(trusts, web, office)
    anew = made_anew(camden)
    office.release(anew.card(), replace=True)
    await refreshed(trusts)
    found = await peer(trusts, camden)
    assert (found["trust"], found["fingerprint"]) == ("verified", anew.fingerprint)


async def test_a_new_identity_of_one_whom_people_verified_changes_nothing_and_people_are_told_once(
    trusts: Node, office: Office, web: Web, camden: Borough
) -> None:
    await trusts.know(camden)
    office.release(await trusts.proven_card(), made_anew(camden).card())
    await joined(trusts, web, office)
    await refreshed(trusts)
    found = await peer(trusts, camden)
    assert (found["trust"], found["fingerprint"], found["candidate"]) == ("verified", camden.fingerprint, None)
    assert found["listed_by"] is None
    assert found["listed_fingerprint"] != camden.fingerprint
    assert [alarm["origin"] for alarm in await alarms(trusts, "directory-differs")] == [camden.origin]


async def test_one_whom_people_verified_and_that_is_blocked_stays_blocked(
    trusts: Node, office: Office, web: Web, camden: Borough
) -> None:
    await trusts.know(camden)
    anew = made_anew(camden)
    await trusts.know(anew, verified=False)
    assert await trusts.trust(camden.origin) == "blocked"
    office.release(await trusts.proven_card(), anew.card())
    await joined(trusts, web, office)
    assert await trusts.trust(camden.origin) == "blocked"
    # People find that the directory lists what the peer now shows.
    assert (await peer(trusts, camden))["listed_by"] == web.url


async def test_under_hint_another_identity_of_an_unverified_peer_is_shown_and_not_taken(
    enfield: Node, office: Office, web: Web, camden: Borough
) -> None:
    await enfield.know(camden, verified=False)
    anew = made_anew(camden)
    office.release(await enfield.proven_card(), anew.card())
    document = await joined(enfield, web, office)
    assert document["items"][0]["note"] == "another identity than the one in force here"
    found = await peer(enfield, camden)
    assert (found["fingerprint"], found["listed_fingerprint"]) == (camden.fingerprint, anew.fingerprint)


async def test_a_second_borough_for_an_area_that_a_verified_peer_serves_is_not_verified(
    trusts: Node, office: Office, web: Web, camden: Borough, clock: Clock
) -> None:
    await trusts.know(camden)
    other = Borough("exchange.other.example", CAMDEN, clock)
    office.release(await trusts.proven_card(), other.card())
    await joined(trusts, web, office)
    assert await trusts.trust(other.origin) == "unverified"
    assert "another verified peer" in (await alarms(trusts, "directory-differs"))[0]["detail"]


async def suspended(node: Node, camden: Borough) -> None:
    assert (await node.local("POST", f"/v1/peers/suspend/{camden.origin}"))[0] == 200


async def blocked(node: Node, camden: Borough) -> None:
    await node.know(made_anew(camden), verified=False)


async def quarantined(node: Node, camden: Borough) -> None:
    await node.services.store.write(lambda tx: move(tx, camden.origin, Standing.fork))


async def revoked(node: Node, camden: Borough) -> None:
    await node.services.store.write(lambda tx: move(tx, camden.origin, Standing.revoke))


async def removed(node: Node, camden: Borough) -> None:
    assert (await node.local("DELETE", f"/v1/peers/{camden.origin}"))[0] == 200


async def blocked_and_removed(node: Node, camden: Borough) -> None:
    await blocked(node, camden)
    await removed(node, camden)


@pytest.mark.parametrize("became", [suspended, blocked, quarantined, revoked, removed, blocked_and_removed])
async def test_whatever_becomes_of_one_whom_people_verified_its_area_is_not_handed_to_another_without_people(
    trusts: Node, office: Office, web: Web, camden: Borough, clock: Clock, became: Callable[[Node, Borough], Any]
) -> None:
    await trusts.know(camden)
    await became(trusts, camden)
    impostor = Borough("exchange.camden-new.example", CAMDEN, clock)
    office.release(await trusts.proven_card(), impostor.card())
    document = await joined(trusts, web, office)
    assert await trusts.trust(impostor.origin) == "unverified"
    state = became.__name__.split("_")[-1]
    note = f"the area of {camden.origin}, which is {state} here"
    assert next(item["note"] for item in document["items"] if item["area"] == CAMDEN) == note
    await refreshed(trusts)
    (alarm,) = await alarms(trusts, "directory-differs")
    assert alarm["origin"] == impostor.origin
    assert note in alarm["detail"]
    status, _ = await trusts.local("POST", f"/v1/messages/to/{CAMDEN}", data=form(CAMDEN, ENFIELD))
    assert status != 201
    # People may.
    await trusts.know(impostor)
    assert await trusts.trust(impostor.origin) == "verified"
    assert next(item["note"] for item in (await refreshed(trusts))["items"] if item["area"] == CAMDEN) is None


@pytest.mark.parametrize("became", [suspended, quarantined, removed])
async def test_one_whom_the_directory_alone_verified_and_people_or_a_fork_stopped_holds_its_area_too(
    trusts: Node, office: Office, web: Web, camden: Borough, clock: Clock, became: Callable[[Node, Borough], Any]
) -> None:
    await listing(office, trusts, camden)
    await joined(trusts, web, office)
    await became(trusts, camden)
    impostor = Borough("exchange.camden-new.example", CAMDEN, clock)
    office.release(impostor.card(), replace=True)
    await refreshed(trusts)
    assert await trusts.trust(impostor.origin) == "unverified"
    assert [alarm["origin"] for alarm in await alarms(trusts, "directory-differs")] == [impostor.origin]


async def test_of_one_whom_the_directory_alone_verified_it_may_give_the_area_to_another(
    trusts: Node, office: Office, web: Web, camden: Borough, clock: Clock
) -> None:
    await listing(office, trusts, camden)
    await joined(trusts, web, office)
    other = Borough("exchange.camden-new.example", CAMDEN, clock)
    office.release(other.card(), replace=True)
    await refreshed(trusts)
    assert (await trusts.trust(camden.origin), await trusts.trust(other.origin)) == ("suspended", "verified")


# The node itself.


async def test_another_node_that_is_listed_for_the_nodes_own_area_is_not_verified(
    trusts: Node, office: Office, web: Web, camden: Borough, clock: Clock
) -> None:
    impostor = Borough("exchange.evil.example", ENFIELD, clock)
    office.release(impostor.card(), camden.card())
    document = await joined(trusts, web, office)
    assert document["own"] == "differs"
    assert await trusts.trust(impostor.origin) == "unverified"
    assert await trusts.trust(camden.origin) == "verified"
    assert "the area of this node itself" in [item["note"] for item in document["items"]]
    assert "the area of this node itself" in (await alarms(trusts, "directory-differs"))[0]["detail"]


@pytest.mark.parametrize(("own", "others"), [("missing", False), ("differs", True)])
async def test_a_node_that_is_not_listed_or_in_whose_place_somebody_is_tells_its_people_once(
    trusts: Node, office: Office, web: Web, camden: Borough, clock: Clock, own: str, others: bool
) -> None:
    impostor = Borough("exchange.enfield.example", "E09000010", clock)
    office.release(camden.card(), *([impostor.card()] if others else []))
    assert (await joined(trusts, web, office))["own"] == own
    await refreshed(trusts)
    assert len(await alarms(trusts, "directory-own-entry")) == 1
    assert await peer(trusts, impostor) is None


# Joining and leaving.


async def test_without_a_root_that_its_keyholders_signed_nothing_is_joined(
    enfield: Node, office: Office, web: Web, camden: Borough
) -> None:
    office.release(camden.card())
    unsigned = json.loads(office.root()) | {"signatures": []}
    assert (await join(enfield, web, office, json.dumps(unsigned).encode()))[0] == 400
    status, document = await join(enfield, web, office, b'{"signed": {}}')
    assert (status, document["code"]) == (400, "request-invalid")
    assert (await enfield.local("GET", "/v1/directory"))[0] == 404


async def test_with_the_root_of_another_directory_nothing_is_joined(
    enfield: Node, office: Office, web: Web, camden: Borough, tmp_path: Path, clock: Clock
) -> None:
    office.release(camden.card())
    other = Office(tmp_path / "other", clock)
    other.release(camden.card())
    status, document = await join(enfield, web, office, other.root())
    assert (status, document["code"]) == (403, "directory-refused")
    assert (await enfield.local("GET", "/v1/directory"))[0] == 404
    assert await peer(enfield, camden) is None


async def test_a_second_directory_is_joined_only_after_the_first_was_left_and_peers_stay(
    trusts: Node, office: Office, web: Web, camden: Borough
) -> None:
    await listing(office, trusts, camden)
    await joined(trusts, web, office)
    assert (await join(trusts, web, office))[0] == 409
    status, document = await trusts.local("DELETE", "/v1/directory")
    assert (status, document["verified_by_it"]) == (200, [camden.origin])
    assert await trusts.trust(camden.origin) == "verified"
    assert (await trusts.local("GET", "/v1/directory"))[0] == 404
    await joined(trusts, web, office)


@pytest.mark.parametrize("url", ["ftp://directory.example", "http://directory.example", "https://me@directory.example"])
async def test_a_url_that_is_not_https_is_refused(enfield: Node, office: Office, camden: Borough, url: str) -> None:
    office.release(camden.card())
    body = {"url": url, "root": json.loads(office.root())}
    assert (await enfield.local("POST", "/v1/directory", body))[0] == 400


async def test_it_is_asked_again_by_itself_when_it_is_time(
    trusts: Node, office: Office, web: Web, camden: Borough, clock: Clock
) -> None:
    await listing(office, trusts)
    await joined(trusts, web, office)
    client = PeerClient(trusts.services)
    directory = Directory(trusts.services, client, lambda *_: None)
    office.release(camden.card())
    await directory.look()
    assert await peer(trusts, camden) is None
    clock.now_ms += 3_600_000
    await directory.look()
    assert await trusts.trust(camden.origin) == "verified"
    await client.close()


async def test_cards_that_did_not_change_are_not_fetched_again(
    trusts: Node, office: Office, web: Web, camden: Borough
) -> None:
    await listing(office, trusts, camden)
    await joined(trusts, web, office)
    web.asked.clear()
    await refreshed(trusts)
    assert web.asked == ["metadata/2.root.json", "metadata/timestamp.json"]


async def test_a_rotation_that_the_card_proves_is_followed_under_either_policy(
    enfield: Node, hackney: Node, office: Office, web: Web
) -> None:
    await enfield.know(hackney)
    status, rotated = await hackney.local("POST", "/v1/keys/rotate")
    assert status == 200, rotated
    _, document = await hackney.local("GET", "/v1/card")
    office.release(await enfield.proven_card(), json.dumps(document["card"]).encode())
    await joined(enfield, web, office)
    found = (await enfield.local("GET", f"/v1/peers/{hackney.origin}"))[1]
    assert (found["trust"], found["fingerprint"]) == ("verified", rotated["fingerprint"])
