"""One-time links: one press takes a section on; to look, as scanners of mail do, changes nothing."""

import asyncio
import io
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exchange.agency.keys import AgencyKeys
from exchange.crypto.names import Origin
from tests.node.agency import LOOPBACK, Agency
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, Pair, reserved_port, running, until
from tests.node.test_holders import ANA, BEN, placed
from tests.node.test_sealed import sealed_agency

DAY_MS = 86_400_000
UNKNOWN = "exlk_" + "A" * 43


@dataclass
class Asked:
    """Two nodes; at one housing has a section, and a link for it."""

    pair: Pair
    url: str
    housing: Agency
    message: str

    @property
    def enfield(self) -> Node:
        return self.pair.enfield

    async def press(self, url: str, method: str = "POST", **fields: str) -> tuple[int, str, Any]:
        """Ask for a link's page, or send its form."""
        data = fields if method == "POST" else None
        async with self.enfield.http.request(method, url, data=data, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers

    async def make(self, expected: int = 201, section: str = "housing", **wanted: Any) -> Any:
        status, made = await self.enfield.local("POST", f"/v1/sections/{self.message}/{section}/links", wanted)
        assert status == expected, made
        return made

    async def rung(self) -> tuple[str, str | None]:
        found = await placed(self.enfield, self.message)
        return found["rung"], found["holder"]

    def of_event(self) -> str:
        """The link that came with the section."""
        (event,) = [one for one in self.housing.events if one["subject"] == f"{self.message}/housing"]
        return str(event["data"]["links"]["acknowledge"])


@asynccontextmanager
async def asked(path: Path, clock: Clock, more: str = "") -> AsyncIterator[Asked]:
    clock.run()
    with reserved_port() as port:
        table = f'[agencies]\naddress = "127.0.0.1:{port}"\nurl = "http://127.0.0.1:{port}/"\n'
        async with (
            running(path / "hackney", HACKNEY, "exchange.hackney.example", clock) as hackney,
            running(path / "enfield", ENFIELD, "exchange.enfield.example", clock, table + more) as enfield,
            Agency("housing").listening() as housing,
        ):
            await hackney.know(enfield)
            await enfield.know(hackney)
            await housing.register(enfield)
            status, changed = await enfield.local("POST", f"/v1/agencies/{housing.id}/settings", {"links": True})
            assert (status, changed["links"]) == (200, True)
            message = await hackney.send(ENFIELD)
            made = Asked(Pair(hackney, enfield), f"http://127.0.0.1:{port}", housing, message)
            await at_sender(made, "delivered")
            yield made


async def at_sender(at: Asked, rung: str) -> dict[str, Any]:
    async def there() -> Any:
        found = await placed(at.pair.hackney, at.message)
        return found if found["rung"] == rung else None

    return dict(await until(f"housing is {rung} at the sender", there))


@pytest.fixture
async def at(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Asked]:
    async with asked(tmp_path, clock) as made:
        yield made


async def test_somebody_takes_a_section_on_with_one_press_and_the_sender_sees_who(at: Asked) -> None:
    url = at.of_event()
    status, text, _ = await at.press(url, "GET")
    assert status == 200
    for told in (at.message, "Hackney", "housing", "Take this section on"):
        assert told in text
    status, text, _ = await at.press(url, **ANA, note="I will ring.\r\nOn Monday.")
    assert status == 200, text
    assert "You have taken this section on" in text
    word = (await at_sender(at, "owned"))["word"]
    assert (word["holder"]["name"] if "holder" in word else word["name"], word["by"]) == (ANA["name"], "agency")
    assert word["note"] == "I will ring.\nOn Monday."
    status, text, _ = await at.press(url, **BEN)
    assert status == 410
    assert "This link has been used" in text
    assert ANA["name"] not in text
    assert (await at.press(url, "GET"))[0] == 410
    assert await at.rung() == ("owned", ANA["name"])
    assert at.enfield.count("links_used") == 1


async def test_a_scanner_that_fetches_everything_changes_nothing(at: Asked) -> None:
    url, before = at.of_event(), at.enfield.kept()
    seen, left = set[str](), [url]
    while left:
        place = left.pop()
        if place in seen:
            continue
        seen.add(place)
        for method in ("HEAD", "GET", "OPTIONS", "PUT", "DELETE", "HEAD", "GET"):
            _, text, headers = await at.press(place, method)
            assert "location" not in headers
            found = re.findall(r"(?:href|action|src)='([^'#]*)'", text)
            left += [at.url + one for one in found if one.startswith("/")]
    # One that presses every button has nothing to say.
    for fields in (
        {},
        {"name": "", "role": "", "contact": ""},
        {"name": "x"},
        {"name": " ", "role": "\0", "contact": "y"},
    ):
        status, text, _ = await at.press(url, **fields)
        assert status == 422
        assert "<title>Error: " in text
    async with at.enfield.http.post(url, json=ANA) as answer:
        assert answer.status == 422
    assert at.enfield.kept() == before
    assert await at.rung() == ("delivered", None)
    assert (await at.press(url, **ANA))[0] == 200


async def test_of_two_who_press_at_once_one_has_it(at: Asked) -> None:
    url = at.of_event()
    people = [{**ANA, "name": f"Person {number}"} for number in range(8)]
    answers = await asyncio.gather(*(at.press(url, **one) for one in people))
    won = [one["name"] for one, (status, _, _) in zip(people, answers, strict=True) if status == 200]
    assert sorted(status for status, _, _ in answers) == [200] + [410] * 7
    assert await at.rung() == ("owned", won[0])
    assert at.enfield.rows("SELECT count(*) FROM receipts WHERE rung = 'owned'") == [(1,)]


async def test_of_two_links_for_a_section_one_is_good(at: Asked) -> None:
    made = await at.make()
    answers = await asyncio.gather(at.press(made["url"], **ANA), at.press(at.of_event(), **BEN))
    assert sorted(status for status, _, _ in answers) == [200, 410]
    assert at.enfield.rows("SELECT count(*) FROM receipts WHERE rung = 'owned'") == [(1,)]


async def test_a_link_ends_by_the_nodes_clock(at: Asked, clock: Clock) -> None:
    made = await at.make(days=1)
    clock.stop()
    clock.now_ms += DAY_MS - 60_000
    assert (await at.press(made["url"], "GET"))[0] == 200
    clock.now_ms += 60_000
    for method in ("GET", "POST"):
        status, text, _ = await at.press(made["url"], method, **ANA)
        assert status == 410
        assert "This link has expired" in text
    assert (await at.rung())[1] is None
    assert (await at.press(at.of_event(), "GET"))[0] == 200
    clock.run()


async def test_a_link_that_was_withdrawn_says_so(at: Asked) -> None:
    made = await at.make(agency="housing")
    assert (await at.enfield.local("DELETE", f"/v1/links/{made['id']}"))[0] == 200
    assert (await at.enfield.local("DELETE", f"/v1/links/{made['id']}"))[0] == 404
    status, text, _ = await at.press(made["url"], **ANA)
    assert status == 410
    assert "This link was withdrawn" in text
    assert (await at.rung())[1] is None
    listed = (await at.enfield.local("GET", f"/v1/sections/{at.message}/housing/links"))[1]["items"]
    assert [(one["made_by"] is None, one["withdrawn_at"] is None) for one in listed] == [(True, True), (False, False)]


async def test_a_link_that_the_borough_made_speaks_as_the_borough(at: Asked) -> None:
    made = await at.make()
    assert (await at.press(made["url"], **ANA))[0] == 200
    assert (await at_sender(at, "owned"))["word"]["by"] == "borough"
    assert (await at.press(at.of_event(), "GET"))[1].count("Somebody at your agency has taken it on") == 1
    assert (await at.make(409))["code"] == "not-said-there"


async def test_no_link_is_made_for_what_an_agency_does_not_have(at: Asked) -> None:
    assert (await at.make(404, section="police"))["code"] == "not-found"
    assert (await at.make(404, agency="police"))["code"] == "not-found"
    assert (await at.make(400, days=31))["code"] == "request-invalid"


async def test_the_link_of_an_event_is_the_same_at_every_attempt(at: Asked) -> None:
    url = at.of_event()
    status, _ = await at.enfield.local("POST", f"/v1/agencies/{at.housing.id}/replay", {"message_id": at.message})
    assert status == 200

    async def again() -> Any:
        found = [one for one in at.housing.events if one["subject"] == f"{at.message}/housing"]
        return found if len(found) == 2 else None

    events = await until("the section came again", again)
    assert events[1]["data"]["links"]["acknowledge"] == url
    assert at.enfield.rows("SELECT count(*) FROM links WHERE section = 'housing'") == [(1,)]


async def test_a_link_is_in_no_store_no_log_and_no_other_site_hears_of_it(at: Asked, lines: io.StringIO) -> None:
    made = await at.make()
    _, text, headers = await at.press(made["url"], "GET")
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-robots-tag"] == "noindex, nofollow"
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "form-action 'self'" in headers["content-security-policy"]
    token = made["url"].rpartition("/")[2]
    assert token not in text
    assert "http" not in text
    await at.press(made["url"], **ANA)
    stored = str([at.enfield.rows(f"SELECT * FROM {name}") for name in ("links", "acknowledgements", "receipts")])
    for secret in (token, *ANA.values()):
        assert secret not in stored
        assert secret not in lines.getvalue()
    files = [path for path in at.enfield.directory.rglob("*") if path.is_file()]
    assert token.encode() not in b"".join(path.read_bytes() for path in files)


async def test_an_unknown_link_says_nothing(at: Asked) -> None:
    tokens = (UNKNOWN, "x", "%C3%AB", UNKNOWN[:-1])
    answers = [await at.press(f"{at.url}/acknowledge/{token}", "GET") for token in tokens]
    assert {status for status, _, _ in answers} == {404}
    assert len({text for _, text, _ in answers}) == 1
    assert (await at.press(f"{at.url}/acknowledge/{UNKNOWN}", **ANA))[0] == 404


async def test_who_tries_many_links_is_refused_for_a_while(tmp_path: Path, clock: Clock, lines: io.StringIO) -> None:
    limits = '[limits]\naddress_requests_per_minute = 100\ntrusted_proxies = ["127.0.0.1"]\n'
    async with asked(tmp_path, clock, limits) as at:
        clock.stop()

        async def ask(url: str, caller: str) -> int:
            async with at.enfield.http.get(url, headers={"x-forwarded-for": caller}) as answer:
                return answer.status

        statuses = [await ask(f"{at.url}/acknowledge/{UNKNOWN}", "192.0.2.1") for _ in range(12)]
        assert (statuses[0], statuses[-1]) == (404, 429)
        assert await ask(at.of_event(), "192.0.2.2") == 200
        clock.run()


async def test_what_is_entered_wrongly_is_told_beside_the_field_and_kept(at: Asked) -> None:
    status, text, _ = await at.press(at.of_event(), **{**ANA, "role": "a\u202eb", "note": "<b>"})
    assert status == 422
    assert "<a href='#role'>" in text
    assert "aria-describedby='role-hint role-error'" in text
    assert f"value='{ANA['name']}'" in text
    assert "&lt;b&gt;</textarea>" in text


async def test_links_go_only_to_agencies_that_want_them_and_need_an_address(tmp_path: Path, clock: Clock) -> None:
    clock.run()
    async with (
        running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as enfield,
        Agency("housing").listening() as housing,
    ):
        await housing.register(enfield)
        assert (await enfield.local("GET", f"/v1/agencies/{housing.id}"))[1]["links"] is False
        status, document = await enfield.local("POST", f"/v1/agencies/{housing.id}/settings", {"links": True})
        assert (status, document["code"]) == (400, "request-invalid")
        body = {"kind": "police", "url": housing.url, "networks": LOOPBACK, "handshake": False, "links": True}
        assert (await enfield.local("POST", "/v1/agencies", body))[0] == 400


async def test_no_link_speaks_for_an_agency_that_signs_itself(tmp_path: Path, clock: Clock) -> None:
    clock.now_ms = round(time.time() * 1000)  # as the agency's own clock
    table = '[agencies]\naddress = "127.0.0.1:0"\nurl = "https://agencies.enfield.example"\n'
    async with (
        running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", clock) as hackney,
        running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock, table) as enfield,
        Agency("housing").listening() as housing,
    ):
        await sealed_agency(enfield, housing, AgencyKeys.generate(Origin("housing.enfield.example")))
        assert (await enfield.local("POST", f"/v1/agencies/{housing.id}/settings", {"links": True}))[0] == 200
        await hackney.know(enfield)
        await enfield.know(hackney)
        message = await hackney.send(ENFIELD)

        async def came() -> Any:
            return [one for one in housing.accepted if one["subject"] == f"{message}/housing"] or None

        (event,) = await until("the section came", came)
        assert "sealed" in event["data"]
        assert "links" not in event["data"]

        async def delivered() -> Any:
            return (await placed(enfield, message))["rung"] == "delivered"

        await until("that is recorded", delivered)
        status, document = await enfield.local("POST", f"/v1/sections/{message}/housing/links", {})
        assert (status, document["code"]) == (403, "agency-signs")
        assert enfield.rows("SELECT count(*) FROM links") == [(0,)]
