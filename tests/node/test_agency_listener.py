"""The listener for agencies: a token says who asks, and whoever has none learns nothing."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.node.agency_door import AgencyDoor
from exchange.node.agency_tokens import token_digest
from exchange.node.config import AgenciesTable
from exchange.node.services import Services
from tests.node.certificates import make_certificate
from tests.node.pair import ENFIELD, Clock, Node, reserved_port, running

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PROXY = "127.0.0.1"


@dataclass
class Asked:
    """A node that agencies ask, and one of them."""

    node: Node
    url: str
    agency_id: str

    async def ask(
        self, token: str | None, path: str = "/v1/agency", method: str = "GET", **more: Any
    ) -> tuple[int, dict[str, str], Any]:
        """Ask as an agency does."""
        headers = {**({"authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        async with self.node.http.request(method, self.url + path, headers=headers, **more) as answer:
            body = await answer.read()
            return answer.status, dict(answer.headers), json.loads(body) if body else None

    async def token(self, **wanted: Any) -> dict[str, Any]:
        """A new token of the agency."""
        status, made = await self.node.local("POST", f"/v1/agencies/{self.agency_id}/tokens", wanted)
        assert status == 201, made
        return dict(made)


@asynccontextmanager
async def asked(path: Path, clock: Clock, more: str = "") -> AsyncIterator[Asked]:
    """A node with the listener, and housing registered."""
    with reserved_port() as port:
        table = f'[agencies]\naddress = "127.0.0.1:{port}"\nurl = "http://127.0.0.1:{port}"\n'
        async with running(path / "enfield", ENFIELD, "exchange.enfield.example", clock, table + more) as node:
            body = {
                "kind": "housing",
                "url": "http://127.0.0.1:9/hook",
                "networks": ["127.0.0.0/8"],
                "handshake": False,
            }
            status, added = await node.local("POST", "/v1/agencies", body)
            assert status == 201, added
            yield Asked(node, f"http://127.0.0.1:{port}", added["id"])


@pytest.fixture
async def at(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Asked]:
    async with asked(tmp_path, clock) as made:
        yield made


async def test_a_token_says_which_agency_asks_and_its_url_is_shown_with_it(at: Asked) -> None:
    made = await at.token(days=30)
    assert made["url"] == at.url
    status, headers, document = await at.ask(made["token"])
    assert (status, document["id"], document["kind"], document["token_id"]) == (
        200,
        at.agency_id,
        "housing",
        made["id"],
    )
    assert headers["Server"] == "exchange"


async def test_whatever_is_wrong_with_a_token_it_hears_the_same(at: Asked, clock: Clock) -> None:
    expiring, revoked, good = await at.token(days=1), await at.token(), await at.token()
    clock.now_ms += DAY_MS
    assert (await at.node.local("DELETE", f"/v1/agencies/{at.agency_id}/tokens/{revoked['id']}"))[0] == 200
    wrong = ["exag_" + "A" * 43, "exag_", "x" * 4000, good["token"].lower(), good["token"] + "x"]
    answers = [await at.ask(token) for token in (None, expiring["token"], revoked["token"], *wrong)]
    assert {status for status, _, _ in answers} == {401}
    assert len({json.dumps(document) for _, _, document in answers}) == 1
    assert answers[0][1]["www-authenticate" if "www-authenticate" in answers[0][1] else "WWW-Authenticate"] == "Bearer"
    assert (await at.ask(good["token"]))[0] == 200
    assert at.node.count("agency_tokens_refused") == len(answers)


async def test_two_tokens_are_good_at_once_and_one_goes_without_the_other(at: Asked) -> None:
    old, new = await at.token(), await at.token()
    assert [(await at.ask(made["token"]))[0] for made in (old, new)] == [200, 200]
    await at.node.local("DELETE", f"/v1/agencies/{at.agency_id}/tokens/{old['id']}")
    assert [(await at.ask(made["token"]))[0] for made in (old, new)] == [401, 200]


async def test_tokens_are_hashed_and_their_use_is_known_to_the_hour(at: Asked, clock: Clock, tmp_path: Path) -> None:
    made = await at.token()
    place = f"/v1/agencies/{at.agency_id}/tokens"
    assert [row["used_at"] for row in (await at.node.local("GET", place))[1]["items"]] == [None]
    clock.now_ms += 30 * 60_000
    await at.ask(made["token"])
    (row,) = (await at.node.local("GET", place))[1]["items"]
    assert row["used_at"] == "2026-11-23T16:00:00Z"
    assert made["token"] not in str(at.node.rows("SELECT * FROM agency_tokens"))


async def test_a_token_goes_with_its_agency(at: Asked) -> None:
    made = await at.token()
    assert (await at.node.local("DELETE", f"/v1/agencies/{at.agency_id}"))[0] == 200
    assert (await at.ask(made["token"]))[0] == 401
    assert at.node.rows("SELECT count(*) FROM agency_tokens") == [(0,)]


async def test_who_tries_tokens_has_to_wait_and_others_do_not(tmp_path: Path, clock: Clock) -> None:
    limits = f'[limits]\naddress_requests_per_minute = 63\ntrusted_proxies = ["{PROXY}"]\n'
    async with asked(tmp_path, clock, limits) as at:
        good = await at.token()

        async def tries(address: str, token: str) -> int:
            return (await at.ask(token, headers={"x-forwarded-for": address}))[0]

        assert [await tries("192.0.2.1", "exag_" + "A" * 43) for _ in range(5)] == [401, 401, 401, 429, 429]
        assert {await tries("192.0.2.2", good["token"]) for _ in range(200)} == {200}
        status, headers, document = await at.ask("x", headers={"x-forwarded-for": "192.0.2.1"})
        assert (status, document["code"]) == (429, "too-many-requests")
        assert int(headers["Retry-After"]) >= 1


async def test_nothing_that_was_sent_is_repeated_or_logged(at: Asked, lines: io.StringIO) -> None:
    secret = "exag_" + "S" * 43
    for path, method, data in (
        (f"/v1/agency?{secret}", "GET", None),
        (f"/v1/{secret}", "GET", None),
        ("/v1/agency", "POST", secret.encode()),
        ("/v1/health", "POST", b"x" * 70_000),
        ("/v1/agency%00", "GET", None),
    ):
        _, headers, document = await at.ask(secret, path, method, data=data)
        assert secret not in str(headers) + str(document)
    assert secret not in lines.getvalue()


async def test_a_raw_line_that_is_no_http_is_not_repeated(at: Asked) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(at.url.rpartition(":")[2]))
    writer.write(b"exag_secret nonsense\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert b"bad-request" in answer
    assert b"secret" not in answer


async def test_health_needs_no_token_and_tells_nothing(at: Asked) -> None:
    assert (await at.ask(None, "/v1/health"))[2] == {"status": "ok"}


async def test_its_certificate_is_taken_anew_when_its_files_are_replaced(
    tmp_path: Path, services: Services, clock: Clock
) -> None:
    first, second = make_certificate().write(tmp_path), make_certificate()
    files = {"certificate": str(tmp_path / "tls.crt"), "key": str(tmp_path / "tls.key")}
    table = AgenciesTable(address="127.0.0.1:1", **files)
    tables = msgspec.structs.replace(services.configuration.tables, agencies=table)
    door = AgencyDoor(replace(services, configuration=replace(services.configuration, tables=tables)))
    assert door.door is not None
    assert door.serving is not None
    assert door.serving.pin == first.pin
    before = door.door.current
    await door.look()
    assert door.door.current is before
    second.write(tmp_path)
    await door.look()
    assert (door.serving.pin, door.door.current is before) == (second.pin, False)
    (tmp_path / "tls.key").write_bytes(b"nonsense")
    await door.look()
    assert door.serving.pin == second.pin


async def test_without_the_table_nothing_listens(enfield: Node) -> None:
    assert enfield.services.configuration.tables.agencies.address == ""


@pytest.mark.parametrize(
    ("header", "is_one"),
    [
        ("Bearer exag_" + "a" * 43, True),
        ("bearer  exag_" + "_-" * 21 + "x", True),
        ("Bearer exag_" + "a" * 42, False),
        ("Bearer exag_" + "é" * 43, False),
        ("Basic exag_" + "a" * 43, False),
        ("Bearer exch_" + "a" * 43, False),
        ("Bearer exag_" + "a" * 43 + "\n", False),
        ("", False),
    ],
)
def test_a_header_holds_a_token_or_none(header: str, is_one: bool) -> None:
    assert (token_digest(header) is not None) == is_one
