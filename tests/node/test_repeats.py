"""A form that is sent twice under one key, because the first answer was lost, is one message."""

import asyncio
import json
import uuid
from typing import Any

import pytest

from tests.node.handmade import Borough
from tests.node.pair import Clock, Node, form

CAMDEN = "E09000007"
DAY_MS = 86_400_000


def other_form() -> bytes:
    document = json.loads(form(CAMDEN, "E09000010"))
    document["aspirations"]["own_words"] = "Something else."
    return json.dumps(document).encode()


async def send(node: Node, key: str | None, data: bytes | None = None) -> tuple[int, Any]:
    headers = {"idempotency-key": key} if key is not None else {}
    body = data or form(CAMDEN, "E09000010")
    url = f"http://local/v1/messages/to/{CAMDEN}"
    async with node.local_http.post(url, data=body, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


def sent(node: Node) -> int:
    return int(node.rows("SELECT count(*) FROM messages WHERE direction = 'out'")[0][0])


async def test_a_form_that_is_sent_again_under_its_key_is_one_message(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    key = str(uuid.uuid4())
    status, first = await send(enfield, key)
    assert (status, first["id"], first["repeated"]) == (201, key, False)
    before = enfield.kept()
    status, again = await send(enfield, key)
    assert (status, again) == (200, first | {"repeated": True})
    assert enfield.kept() == before


async def test_without_a_key_each_is_a_message_of_its_own(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    (_, first), (_, second) = await send(enfield, None), await send(enfield, None)
    assert first["id"] != second["id"]
    assert sent(enfield) == 2


async def test_a_key_does_not_send_another_form(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    key = str(uuid.uuid4())
    await send(enfield, key)
    before = enfield.kept()
    status, document = await send(enfield, key, other_form())
    assert (status, document["code"]) == (409, "conflict")
    assert enfield.kept() == before


async def test_the_same_request_many_times_at_once_is_one_message(enfield: Node, camden: Borough) -> None:
    await enfield.know(camden)
    key = str(uuid.uuid4())
    answers = await asyncio.gather(*(send(enfield, key) for _ in range(8)))
    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert {document["id"] for _, document in answers} == {key}
    assert sent(enfield) == 1


async def test_a_form_that_waits_for_a_key_of_its_peer_is_known_by_its_key_too(
    enfield: Node, camden: Borough, clock: Clock
) -> None:
    await enfield.know(camden)
    clock.now_ms += 40 * DAY_MS
    key = str(uuid.uuid4())
    status, first = await send(enfield, key)
    assert (status, first["repeated"]) == (201, False)
    assert first["held"]
    assert await send(enfield, key) == (200, first | {"repeated": True})
    assert (await send(enfield, key, other_form()))[0] == 409
    assert enfield.rows("SELECT count(*) FROM waiting_forms") == [(1,)]


async def test_what_has_gone_is_answered_as_sent_even_where_it_could_not_be_sent_now(
    enfield: Node, camden: Borough
) -> None:
    await enfield.know(camden)
    key = str(uuid.uuid4())
    _, first = await send(enfield, key)
    await enfield.local("POST", f"/v1/peers/suspend/{camden.origin}")
    assert (await send(enfield, str(uuid.uuid4())))[0] == 403
    assert await send(enfield, key) == (200, first | {"repeated": True})


@pytest.mark.parametrize("key", ["", "1", "A" * 36, "0B7F4A52-9C1E-4D0E-8F64-2F7F3C1D9A10", "../0b7f4a52"])
async def test_a_key_that_is_no_message_id_is_refused(enfield: Node, camden: Borough, key: str) -> None:
    await enfield.know(camden)
    status, document = await send(enfield, key)
    assert (status, document["code"]) == (400, "request-invalid")
    assert sent(enfield) == 0
