"""Who calls, as far as an address says: behind proxies, by IPv6, on connections, and how often without a proof."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from exchange.node.callers import Callers, parse_address
from exchange.node.config import LimitsTable
from exchange.node.listener import Connections
from tests.node.handmade import Borough
from tests.node.pair import ENFIELD, Clock, Node, running, until
from tests.node.test_bodies import envelope, head
from tests.node.test_listener import Caller, Listener

PROXY = "127.0.0.1"
NOW_MS = 1_795_449_600_000


def callers(*proxies: str, requests: int = 600) -> Callers:
    return Callers(LimitsTable(trusted_proxies=proxies, address_requests_per_minute=requests))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7:443 ", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("unknown", None),
        ("", None),
        ("_hidden", None),
        ("192.0.2.7.8", None),
        ("1" * 5000, None),
    ],
)
def test_an_address_is_read_as_proxies_write_it(text: str, address: str | None) -> None:
    found = parse_address(text)
    assert (str(found) if found else None) == address


@pytest.mark.parametrize(
    ("proxies", "remote", "forwarded", "caller"),
    [
        ((), "192.0.2.7", [], "192.0.2.7"),
        ((), "192.0.2.7", ["198.51.100.1"], "192.0.2.7"),
        ((), "2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
        ((), PROXY, [], None),
        ((), PROXY, ["198.51.100.1"], None),
        ((), "", [], None),
        (("127.0.0.0/8",), PROXY, [], None),
        (("127.0.0.0/8",), PROXY, ["198.51.100.1"], "198.51.100.1"),
        (("127.0.0.0/8",), PROXY, ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        (("127.0.0.0/8",), PROXY, ["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
        (("127.0.0.0/8", "198.51.100.0/24"), PROXY, ["203.0.113.9, 198.51.100.1"], "203.0.113.9"),
        (("127.0.0.0/8",), PROXY, ["203.0.113.9, nonsense"], None),
        (("127.0.0.0/8",), "192.0.2.7", ["203.0.113.9"], "192.0.2.7"),
    ],
)
def test_only_what_a_trusted_proxy_has_added_is_believed(
    proxies: tuple[str, ...], remote: str, forwarded: list[str], caller: str | None
) -> None:
    class Place:
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return (remote, 1) if name == "peername" else default

    headers = [("x-forwarded-for", text) for text in forwarded]
    request = make_mocked_request("GET", "/", headers, transport=Place())  # type: ignore[arg-type]
    assert callers(*proxies).of(request) == caller


def test_who_proves_nothing_waits_and_one_more_address_of_the_same_network_does_not_help() -> None:
    some = callers(requests=2)
    first, second = some.at("2001:db8::1"), some.at("2001:db8::ffff:2")
    assert some.wait_ms(first, 1, NOW_MS) == 0
    assert some.wait_ms(second, 1, NOW_MS) == 0
    assert some.wait_ms(first, 1, NOW_MS) == 30_000
    assert some.wait_ms(some.at("2001:db8:0:1::1"), 1, NOW_MS) == 0
    assert some.describe(NOW_MS) == 1
    assert some.wait_ms(first, 1, NOW_MS + 30_000) == 0


def test_who_brings_much_may_ask_seldom() -> None:
    some = callers(requests=100)
    assert some.wait_ms("192.0.2.7", 65, NOW_MS) == 0
    assert some.wait_ms("192.0.2.7", 65, NOW_MS) == 18_000


def test_what_was_proven_counts_elsewhere() -> None:
    some = callers(requests=1)
    for _ in range(5):
        assert some.wait_ms("192.0.2.7", 1, NOW_MS) == 0
        some.proven("192.0.2.7", 1)
    assert some.wait_ms("192.0.2.7", 1, NOW_MS) == 0
    assert some.wait_ms("192.0.2.7", 1, NOW_MS) > 0


def test_no_number_of_addresses_takes_more_than_so_much_memory() -> None:
    some = callers()
    for number in range(20_000):
        some.wait_ms(f"192.0.2.{number}", 1, NOW_MS)
    assert len(some._levels) <= 8192


async def test_a_caller_behind_a_proxy_is_told_to_wait_and_a_peer_is_not(
    tmp_path: Path, clock: Clock, camden: Borough
) -> None:
    table = f'[limits]\naddress_requests_per_minute = 3\ntrusted_proxies = ["{PROXY}"]\n'
    async with running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock, table) as enfield:
        await enfield.know(camden)
        card = await enfield.card()

        async def ask(address: str, path: str = "/v1/card", data: bytes | None = None) -> tuple[int, str, Any]:
            headers = {"x-forwarded-for": address, "content-type": "application/vnd.exchange.envelope"}
            async with enfield.http.request(
                "POST" if data else "GET", enfield.url + path, data=data, headers=headers
            ) as answer:
                body = await answer.read()
                return answer.status, answer.headers.get("retry-after", ""), body

        assert [(await ask("192.0.2.1"))[0] for _ in range(3)] == [200] * 3
        status, after, body = await ask("192.0.2.1")
        assert (status, after, json.loads(body)["code"]) == (429, "20", "too-many-requests")
        assert enfield.count("requests_over_limit") == 1
        assert (await ask("192.0.2.2"))[0] == 200
        for _ in range(5):
            assert (await ask("192.0.2.3", "/v1/envelopes", envelope(camden, card)))[0] == 200
        refused = [(await ask("192.0.2.4", "/v1/envelopes", b"nonsense"))[0] for _ in range(4)]
        assert refused == [403, 403, 429, 429]
        # Anybody may have these: what they tell is true, and tells nothing new.
        recorded, public = envelope(camden, card), camden.envelope(card, [camden.card()])
        for address, data in (("192.0.2.5", recorded), ("192.0.2.6", public)):
            statuses = [(await ask(address, "/v1/envelopes", data))[0] for _ in range(5)]
            assert statuses[0] == 200
            assert statuses[-1] == 429
        clock.now_ms += 20_000
        assert (await ask("192.0.2.1"))[0] == 200


async def test_one_address_has_few_of_the_connections(enfield: Node) -> None:
    listener = Listener(enfield)
    await listener.start(Connections(most=8, most_of_one=2, caller_at=lambda address: address))
    first, second = await listener.call(), await listener.call()
    assert "200" in await first.ask()
    third = await listener.call()
    assert await first.is_closed()
    for caller in (second, third):
        assert "200" in await caller.ask()
    await listener.close()


async def test_where_all_connections_of_an_address_are_at_work_a_new_one_is_closed(
    enfield: Node, camden: Borough
) -> None:
    await enfield.know(camden)
    listener = Listener(enfield)
    await listener.start(Connections(most=8, most_of_one=1, caller_at=lambda address: address))
    data = envelope(camden, await enfield.card())
    working: Caller = await listener.call()
    working.writer.write(head(f"content-length: {len(data)}") + data[:10])

    async def refused() -> bool:
        try:
            caller = await listener.call()
        except (ConnectionError, EOFError):
            return True
        return await caller.is_closed()

    await until("another is closed", refused)
    working.writer.write(data[10:])
    assert " 200 " in (await working.answer())[0]
    await listener.close()
