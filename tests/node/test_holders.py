"""Who holds a section: what agencies and boroughs say is signed, and shown at the sender."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import yarl

from tests.node.agency import Agency
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, Pair, reserved_port, running, until

ANA = {"name": "Ana Fictitious", "role": "Housing officer", "contact": "020 7946 0000"}
BEN = {"name": "Ben Fictitious", "role": "Duty officer", "contact": "020 7946 0001"}
QUESTION = "Which flat is it that he moves to?"
SAID = (*ANA.values(), *BEN.values(), QUESTION)


@dataclass
class Asked:
    """Two nodes of which one has the agencies' listener, and its housing agency."""

    pair: Pair
    url: str
    housing: Agency
    token: str
    message: str

    async def say(
        self, verb: str, body: Any, section: str = "housing", token: str | None = None, **more: Any
    ) -> tuple[int, Any]:
        """Say something of a section as the agency does."""
        headers = {"authorization": f"Bearer {token or self.token}"}
        place = f"{self.url}/v1/sections/{self.message}/{section}{verb and '/' + verb}"
        method = "POST" if verb else "GET"
        http = self.pair.enfield.http
        async with http.request(method, place, headers=headers, data=json.dumps(body).encode(), **more) as answer:
            return answer.status, await answer.json(content_type=None)

    async def at_sender(self, rung: str, section: str = "housing", **wanted: Any) -> dict[str, Any]:
        """Wait until the sender says that the section stands on a rung, with these values."""

        async def there() -> Any:
            found = await placed(self.pair.hackney, self.message, section)
            return (
                found if found["rung"] == rung and all(found[key] == value for key, value in wanted.items()) else None
            )

        return dict(await until(f"{section} is {rung} at the sender", there))

    async def token_for(self, agency_id: str) -> str:
        status, made = await self.pair.enfield.local("POST", f"/v1/agencies/{agency_id}/tokens", {})
        assert status == 201
        return str(made["token"])


async def placed(node: Node, message: str, section: str = "housing", agency: str = "housing") -> dict[str, Any]:
    rows = (await node.status(message))["sections"]
    return dict(next(row for row in rows if (row["section"], row["agency"]) == (section, agency)))


@asynccontextmanager
async def asked(path: Path, clock: Clock) -> AsyncIterator[Asked]:
    """A message whose housing section housing has."""
    clock.run()
    with reserved_port() as port:
        table = f'[agencies]\naddress = "127.0.0.1:{port}"\n'
        async with (
            running(path / "hackney", HACKNEY, "exchange.hackney.example", clock) as hackney,
            running(path / "enfield", ENFIELD, "exchange.enfield.example", clock, table) as enfield,
            Agency("housing").listening() as housing,
        ):
            await hackney.know(enfield)
            await enfield.know(hackney)
            await housing.register(enfield)
            made = Asked(Pair(hackney, enfield), f"http://127.0.0.1:{port}", housing, "", await hackney.send(ENFIELD))
            made.token = await made.token_for(housing.id)
            await made.at_sender("delivered")
            yield made


@pytest.fixture
async def at(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Asked]:
    async with asked(tmp_path, clock) as made:
        yield made


async def test_an_agency_owns_a_section_and_the_sender_sees_who_holds_it(at: Asked, lines: io.StringIO) -> None:
    status, answer = await at.say("own", {**ANA, "note": "Keys are at the desk."})
    assert (status, answer["rung"]) == (200, "owned"), answer
    found = await at.at_sender("owned", holder=ANA["name"])
    word = found["word"]
    assert (word["role"], word["contact"], word["note"]) == (ANA["role"], ANA["contact"], "Keys are at the desk.")
    assert (word["by"], word["signed"], word["sealed"], word["erased"]) == ("agency", False, False, False)
    _, timeline = await at.pair.hackney.local("GET", f"/v1/messages/{at.message}/timeline")
    assert any(event["event"] == "owned" and event["sections"] == ["housing"] for event in timeline["events"])
    assert (await placed(at.pair.enfield, at.message))["holder"] == ANA["name"]
    for node in (at.pair.hackney, at.pair.enfield):
        stored = str([node.rows(f"SELECT * FROM {name}") for name in ("acknowledgements", "receipts", "timeline")])
        stored += str(node.rows("SELECT * FROM statements"))
        assert not any(said in stored for said in (*ANA.values(), "Keys are at"))
    assert not any(said in lines.getvalue() for said in ANA.values())


async def test_the_same_word_again_is_answered_as_before_and_signs_nothing(at: Asked) -> None:
    first = await at.say("own", ANA)
    signed = at.pair.enfield.kept()["statements"]
    assert [await at.say("own", ANA) for _ in range(2)] == [first, first]
    assert at.pair.enfield.kept()["statements"] == signed
    assert at.pair.enfield.count("words_repeated") == 2


async def test_a_section_is_handed_on_and_both_receipts_stay(at: Asked) -> None:
    await at.say("own", ANA)
    assert (await at.say("own", BEN))[0] == 200
    await at.at_sender("owned", holder=BEN["name"])
    assert (await at.say("own", ANA))[0] == 200
    await at.at_sender("owned", holder=ANA["name"])
    receipts = at.pair.hackney.rows("SELECT count(*) FROM receipts WHERE rung = 'owned'")
    assert receipts == [(3,)]


async def test_a_question_goes_to_the_counterpart_and_is_held_until_there_is_one(at: Asked) -> None:
    hackney = at.pair.hackney
    assert (await at.say("query", {"question": QUESTION}))[0] == 200
    found = await at.at_sender("queried")
    assert (found["holder"], found["word"]["question"], found["held"]) == (None, QUESTION, None)
    (listed,) = (await hackney.local("GET", "/v1/questions"))[1]["items"]
    assert (listed["question"], listed["delivered"], listed["from"]) == (QUESTION, False, at.pair.enfield.origin)
    assert "housing" in listed["held"]
    async with Agency("housing").listening() as counterpart:
        await counterpart.register(hackney)

        async def came() -> Any:
            return counterpart.accepted or None

        (event,) = await until("the counterpart has the question", came)
        assert (event["type"], event["subject"]) == ("exchange.section.queried.v1", f"{at.message}/housing")
        assert event["data"]["content"] == {"question": QUESTION}
        assert (event["data"]["from"], event["data"]["to"], event["data"]["agency"]) == (ENFIELD, HACKNEY, "housing")

        async def delivered() -> Any:
            return (await hackney.local("GET", "/v1/questions"))[1]["items"][0]["delivered"]

        await until("that is recorded", delivered)
        assert (await at.say("own", ANA))[0] == 200
        await at.at_sender("owned", holder=ANA["name"])
        assert (await at.say("query", {"question": "And when?"}))[0] == 200
        await until("the next one came", lambda: asyncio.sleep(0, len(counterpart.accepted) == 2))
        assert (await placed(hackney, at.message))["holder"] == ANA["name"], "who asks goes on holding it"


async def test_what_is_not_theirs_goes_back_to_the_sender_with_an_alarm(at: Asked) -> None:
    await at.say("own", ANA)
    body = {"reason": "He lives in Barnet now.", "whose": "Barnet housing"}
    assert (await at.say("redirect", body))[0] == 200
    found = await at.at_sender("redirected")
    assert (found["holder"], found["word"]["reason"], found["word"]["whose"]) == (None, *body.values())
    (alarm,) = await at.pair.hackney.alarms(at.pair.enfield.origin)
    assert alarm["kind"] == "redirected"
    assert "Barnet" not in alarm["detail"]
    assert (await at.say("redirect", body))[0] == 200, "the same again"
    status, problem = await at.say("query", {"question": QUESTION})
    assert (status, problem["code"]) == (409, "not-said-there")
    assert (await at.say("own", ANA))[0] == 200, "it was theirs after all"
    await at.at_sender("owned", holder=ANA["name"])


async def test_a_section_is_given_to_another_agency_here_which_then_owns_it(at: Asked) -> None:
    enfield = at.pair.enfield
    await at.say("own", ANA)
    async with Agency("housing").listening() as south:
        body = {"kind": "housing", "label": "south", "url": south.url, "networks": ["127.0.0.0/8"]}
        status, document = await enfield.local("POST", "/v1/agencies", body)
        assert status == 201, document
        south.secret = document["secret"]
        south._registered.set()
        moved = {"reason": "They are south of the river.", "to": "housing/south"}
        assert (await at.say("redirect", moved))[0] == 200
        assert (await at.say("redirect", moved))[0] == 200, "the same again"
        assert (await at.say("own", ANA))[0] == 404, "it is not theirs any more"
        assert (await at.say("", None))[0] == 404
        found = await at.at_sender("delivered")
        assert found["holder"] is None
        assert [event["data"]["section"] for event in south.accepted] == ["housing"]
        token = await at.token_for(document["id"])
        assert (await at.say("own", BEN, token=token))[0] == 200
        await at.at_sender("owned", holder=BEN["name"])
        status, problem = await at.say("redirect", {"reason": "No.", "to": "dwp"}, token=token)
        assert status in (400, 404), problem
        assert (await placed(enfield, at.message))["holder"] == BEN["name"]


async def test_only_the_agency_that_has_a_section_may_speak_of_it(at: Asked) -> None:
    async with Agency("police").listening() as police:
        await police.register(at.pair.enfield)
        token = await at.token_for(police.id)
        for section in ("housing", "nothing"):
            status, problem = await at.say("own", ANA, section, token=token)
            assert (status, problem["code"]) == (404, "not-found")
    assert (await at.say("own", ANA, token="exag_" + "A" * 43))[0] == 401


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("own", {}),
        ("own", {"name": "Ana"}),
        ("own", {**ANA, "more": 1}),
        ("own", {**ANA, "name": "a\nb"}),
        ("own", {**ANA, "note": "x" * 8001}),
        ("query", {}),
        ("query", {"question": " "}),
        ("redirect", {}),
        ("redirect", {"reason": "No.", "to": "Housing"}),
    ],
)
async def test_what_does_not_fit_is_refused_whole_and_repeats_nothing(at: Asked, verb: str, body: Any) -> None:
    kept = at.pair.enfield.kept()
    status, problem = await at.say(verb, body)
    assert (status, problem["code"]) == (400, "request-invalid")
    assert "Ana" not in json.dumps(problem)
    assert at.pair.enfield.kept() == kept


async def test_people_at_the_borough_speak_for_an_agency_and_the_receipt_says_so(at: Asked) -> None:
    path = f"/v1/sections/{at.message}/housing"
    status, problem = await at.pair.enfield.local("POST", f"{path}/own", {**ANA, "agency": "police"})
    assert (status, problem["code"]) == (404, "not-found")
    status, answer = await at.pair.enfield.local("POST", f"{path}/own", {**ANA, "agency": "housing"})
    assert status == 200, answer
    found = await at.at_sender("owned", holder=ANA["name"])
    assert found["word"]["by"] == "borough"
    assert (await at.say("own", ANA))[0] == 200
    await until("the agency's own word came", lambda: _by(at, "agency"))


async def _by(at: Asked, whose: str) -> bool:
    return bool((await placed(at.pair.hackney, at.message))["word"]["by"] == whose)


async def test_what_was_said_is_erased_with_the_message(at: Asked) -> None:
    await at.say("own", ANA)
    await at.at_sender("owned", holder=ANA["name"])
    for node in (at.pair.hackney, at.pair.enfield):
        await node.services.store.write(_erase)
        found = await placed(node, at.message)
        assert (found["rung"], found["holder"], found["word"]["erased"]) == ("owned", None, True)


async def _erase(tx: Any) -> None:
    from sqlalchemy import delete

    from exchange.store.tables import message_keys
    from exchange.store.transaction import Sql

    await tx.execute(Sql(delete(message_keys)), {})


async def test_waiting_for_owned_ends_when_every_section_is(at: Asked) -> None:
    _, document = await at.pair.hackney.local("GET", f"/v1/messages/{at.message}?wait=owned&timeout_s=0")
    assert document["reached"] is False
    await at.say("own", ANA)
    await at.at_sender("owned")
    _, document = await at.pair.hackney.local("GET", f"/v1/messages/{at.message}?wait=owned&timeout_s=0")
    assert document["reached"] is False, "others are not owned yet"


async def test_more_is_not_said_of_a_section_than_the_sender_takes(at: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.node.acknowledging.MOST_WORDS", 2)
    assert [(await at.say("own", who))[0] for who in (ANA, BEN)] == [200, 200]
    status, problem = await at.say("own", ANA)
    assert (status, problem["code"]) == (409, "words-too-many")


async def test_the_subject_of_the_event_is_the_id_with_its_slash_escaped_too(at: Asked) -> None:
    (subject,) = {event["subject"] for event in at.housing.accepted if event["data"]["section"] == "housing"}
    place = f"{at.url}/v1/sections/{quote(subject, safe='')}/own"
    headers = {"authorization": f"Bearer {at.token}"}
    async with at.pair.enfield.http.post(
        yarl.URL(place, encoded=True), headers=headers, data=json.dumps(ANA).encode()
    ) as answer:
        assert answer.status == 200, await answer.read()
    await at.at_sender("owned", holder=ANA["name"])
    status, document = await at.say("", None)
    assert (status, document["id"], document["rung"]) == (200, subject, "owned")


async def test_an_agency_may_own_a_section_before_its_2xx_is_recorded(at: Asked) -> None:
    calls: list[tuple[int, Any]] = []
    message = ""

    async def owns(event: dict[str, Any]) -> None:
        if event["data"]["section"] == "housing":
            at.message = event["data"]["message_id"]
            calls.append(await at.say("own", ANA))

    at.housing.before = owns
    message = await at.pair.hackney.send(ENFIELD)

    async def owned() -> Any:
        return (await placed(at.pair.hackney, message))["holder"] == ANA["name"]

    await until("it is owned", owned)
    assert [status for status, _ in calls] == [200]
    assert (await placed(at.pair.enfield, message))["rung"] == "owned"


async def test_what_cannot_be_sealed_to_the_sender_now_is_not_taken(at: Asked, clock: Clock) -> None:
    hackney, enfield = at.pair.hackney, at.pair.enfield
    hackney.stop.set()

    async def silent() -> bool:
        try:
            async with hackney.http.get(f"{hackney.url}/v1/health"):
                return False
        except aiohttp.ClientError:
            return True

    await until("the sender has stopped", silent)
    kept = enfield.kept()["receipts"]
    clock.stop()
    clock.now_ms += 40 * 86_400_000
    clock.run()
    status, problem = await at.say("own", ANA)
    assert (status, problem["code"]) == (503, "no-current-key")
    assert enfield.kept()["receipts"] == kept
