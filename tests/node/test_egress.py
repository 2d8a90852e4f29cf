"""The guard on outbound connections: which addresses, and that it looks at the one that is connected to."""

import ipaddress
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from exchange.node.egress import (
    AddressRefused,
    guarded_connector,
    is_allowed,
    parse_networks,
    refuse_literal,
    why_unreachable,
)

REACHABLE = ["8.8.8.8", "1.1.1.1", "81.144.180.1", "2606:4700:4700::1111", "2a00:1450:4009::200e", "2001:4860::8888"]

INSIDE = [
    ("this host", "0.0.0.0"),
    ("this network", "0.1.2.3"),
    ("private", "10.0.0.1"),
    ("private", "172.16.0.1"),
    ("private", "172.31.255.255"),
    ("private", "192.168.1.1"),
    ("shared by carriers", "100.64.0.1"),
    ("shared by carriers", "100.127.255.255"),
    ("loopback", "127.0.0.1"),
    ("loopback", "127.255.255.254"),
    ("link-local, cloud metadata", "169.254.169.254"),
    ("protocol assignments", "192.0.0.9"),
    ("examples", "192.0.2.1"),
    ("examples", "198.51.100.1"),
    ("examples", "203.0.113.1"),
    ("6to4 relay", "192.88.99.1"),
    ("benchmarks", "198.18.0.1"),
    ("multicast", "224.0.0.1"),
    ("multicast, global scope", "233.252.0.1"),
    ("reserved", "240.0.0.1"),
    ("broadcast", "255.255.255.255"),
    ("unspecified", "::"),
    ("loopback", "::1"),
    ("mapped loopback", "::ffff:127.0.0.1"),
    ("mapped private", "::ffff:10.0.0.1"),
    ("mapped global", "::ffff:8.8.8.8"),
    ("translated", "::ffff:0:10.0.0.1"),
    ("compatible", "::10.0.0.1"),
    ("NAT64", "64:ff9b::10.0.0.1"),
    ("NAT64", "64:ff9b::8.8.8.8"),
    ("local NAT64", "64:ff9b:1::10.0.0.1"),
    ("discard", "100::1"),
    ("Teredo", "2001::1"),
    ("Teredo", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
    ("protocol assignments", "2001:1::1"),
    ("ORCHID", "2001:20::1"),
    ("examples", "2001:db8::1"),
    ("examples", "3fff::1"),
    ("6to4 of a private address", "2002:a00:1::"),
    ("6to4 of a global address", "2002:808:808::1"),
    ("segment routing", "5f00::1"),
    ("unique local", "fc00::1"),
    ("unique local", "fd12:3456:789a::1"),
    ("link-local", "fe80::1"),
    ("link-local with a zone", "fe80::1%eth0"),
    ("site-local", "fec0::1"),
    ("multicast", "ff02::1"),
    ("multicast, global scope", "ff0e::1"),
]


@pytest.mark.parametrize("address", REACHABLE)
def test_what_is_routed_globally_is_allowed(address: str) -> None:
    assert is_allowed(address, ())


@pytest.mark.parametrize(("what", "address"), INSIDE)
def test_what_leads_inside_is_refused(what: str, address: str) -> None:
    assert not is_allowed(address, ()), what


@pytest.mark.parametrize(("what", "address"), INSIDE)
def test_what_leads_inside_is_allowed_where_the_admin_named_its_network(what: str, address: str) -> None:
    plain = address.partition("%")[0]
    assert is_allowed(address, parse_networks([plain])), what


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_becomes_reachable_by_writing_it_as_ipv6(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    forms = [
        ipaddress.IPv6Address(number),
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address((0xFFFF << 48) | number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
        ipaddress.IPv6Address((0x20010000 << 96) | (~number & 0xFFFFFFFF)),
    ]
    assert not any(is_allowed(str(form), ()) for form in forms)


@given(st.ip_addresses())
def test_only_global_addresses_pass_without_a_named_network(address: ipaddress.IPv4Address) -> None:
    assert address.is_global or not is_allowed(str(address), ())


@given(st.ip_addresses())
def test_without_tls_no_address_passes_but_those_of_named_networks(address: ipaddress.IPv4Address) -> None:
    assert not is_allowed(str(address), (), elsewhere=False)
    assert is_allowed(str(address), parse_networks([str(address)]), elsewhere=False)


def test_a_named_network_opens_nothing_beside_itself() -> None:
    networks = parse_networks(["10.1.0.0/16", "fd00:1::/32"])
    assert is_allowed("10.1.255.255", networks)
    assert not is_allowed("10.2.0.0", networks)
    assert not is_allowed("::ffff:10.1.0.1", networks)
    assert is_allowed("fd00:1::5", networks)
    assert not is_allowed("fd00:2::5", networks)


@pytest.mark.parametrize("text", ["10.1.0.1/16", "10.1.0.0/33", "hackney", "10.1", "::/129", "10.0.0.0/8,11.0.0.0/8"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_networks([text])


def test_empty_texts_name_no_network() -> None:
    assert parse_networks(["", "  "]) == ()


# The guard where it sits: below the names, below the resolver, at the socket.


class Heard:
    """A server on loopback that must hear nothing, unless it may."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests: list[str] = []


@pytest.fixture
async def heard() -> AsyncIterator[Heard]:
    async def answer(request: web.Request) -> web.Response:
        server.requests.append(request.path)
        return web.Response(text="inside")

    application = web.Application()
    application.router.add_get("/{any:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = Heard(runner.addresses[0][1])
    yield server
    await runner.cleanup()


class Lies(AbstractResolver):
    """A resolver in an attacker's hand: every name is this machine."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0177.0.0.1",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "127.0.1",
        "[::ffff:7f00:1]",
    ],
)
async def test_no_way_of_writing_loopback_reaches_it(heard: Heard, host: str) -> None:
    async with aiohttp.ClientSession(connector=guarded_connector(())) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://{host}:{heard.port}/")
    assert heard.requests == []


async def test_the_guard_acts_on_the_connected_address_and_not_on_the_name(heard: Heard) -> None:
    async with aiohttp.ClientSession(connector=guarded_connector((), resolver=Lies())) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as refused:
            await session.get(f"http://agency.example:{heard.port}/")
    assert why_unreachable(refused.value) == "connections to 127.0.0.1 are not allowed for this destination"
    assert heard.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_named_network_is_reached(heard: Heard, host: str) -> None:
    connector = guarded_connector(parse_networks(["127.0.0.0/8"]))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://{host}:{heard.port}/x") as answer,
    ):
        assert await answer.text() == "inside"
    assert heard.requests == ["/x"]


def test_of_other_errors_only_the_kind_is_told() -> None:
    assert why_unreachable(OSError("something that the other side said")) == "OSError"


# Public forms of getting around such guards, against a server that hears everything on loopback.

#: What a URL's host may be written as, each meaning this machine or something inside to some program.
BYPASSES = [
    ("decimal", "2130706433"),
    ("decimal of the metadata service", "2852039166"),
    ("octal", "0177.0.0.01"),
    ("octal, padded", "0000177.0000.0000.0001"),
    ("hexadecimal", "0x7f000001"),
    ("hexadecimal by parts", "0x7f.0x0.0x0.0x1"),
    ("hexadecimal, capitals", "0X7F.0X0.0X0.0X1"),
    ("mixed bases", "0x7f.1"),
    ("mixed bases", "0177.0.1"),
    ("overflow", "127.0.0.257"),
    ("overflow of 32 bits", "4429185025"),
    ("two parts", "127.1"),
    ("three parts", "127.0.1"),
    ("zero", "0"),
    ("zero", "0.0.0.0"),
    ("zeros", "000.000.000.000"),
    ("broadcast", "255.255.255.255"),
    ("other loopback", "127.127.127.127"),
    ("trailing dot", "127.0.0.1."),
    ("name", "localhost"),
    ("name with a dot", "localhost."),
    ("name in capitals", "LOCALHOST"),
    ("subdomain of localhost", "agency.localhost"),
    ("IPv6", "[::1]"),
    ("IPv6 unspecified", "[::]"),
    ("IPv6 written out", "[0000:0000:0000:0000:0000:0000:0000:0001]"),
    ("mapped", "[::ffff:127.0.0.1]"),
    ("mapped, hexadecimal", "[::ffff:7f00:1]"),
    ("mapped, written out", "[0:0:0:0:0:ffff:127.0.0.1]"),
    ("compatible", "[::127.0.0.1]"),
    ("translated", "[::ffff:0:127.0.0.1]"),
    ("NAT64", "[64:ff9b::127.0.0.1]"),
    ("local NAT64", "[64:ff9b:1::127.0.0.1]"),
    ("6to4", "[2002:7f00:1::]"),
    ("Teredo", "[2001:0:0:0:0:0:80ff:fffe]"),
    ("ISATAP, link-local", "[fe80::5efe:127.0.0.1]"),
    ("scope", "[fe80::1%25lo]"),
    ("scope on loopback", "[::1%25lo]"),
    ("site-local", "[fec0::1]"),
    ("enclosed digits", "①②⑦.⓪.⓪.①"),
    ("full-width digits", "１２７.０.０.１"),
    ("full-width dots", "127。0。0。1"),
    ("full-width name", "ｌｏｃａｌｈｏｓｔ"),
    ("soft hyphen", "local\u00adhost"),
    ("long s", "localho\u017ft"),
]


@pytest.mark.parametrize(("what", "host"), BYPASSES, ids=[f"{what}-{at}" for at, (what, _) in enumerate(BYPASSES)])
async def test_no_public_way_around_a_guard_gets_through(heard: Heard, what: str, host: str) -> None:
    async with aiohttp.ClientSession(connector=guarded_connector(()), trust_env=False) as session:
        with pytest.raises((aiohttp.ClientError, OSError, ValueError)):
            await session.get(f"http://{host}:{heard.port}/", timeout=aiohttp.ClientTimeout(total=5))
    assert heard.requests == [], what


@pytest.mark.parametrize(
    "form",
    [
        "http://agency.example@127.0.0.1:{port}/",
        "http://agency.example%40127.0.0.1:{port}/",
        "http://agency.example:80@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}#@agency.example/",
        "http://127.0.0.1:{port}?@agency.example/",
        "http://127.0.0.1:{port}\\@agency.example/",
        "http://agency.example\\@127.0.0.1:{port}/",
        "http:\\\\127.0.0.1:{port}/",
        "http:127.0.0.1:{port}/",
        "http:///127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\t/",
        "http://\t127.0.0.1:{port}/",
        "HTTP://127.0.0.1:{port}/",
    ],
)
async def test_no_way_of_hiding_the_host_in_a_url_gets_through(heard: Heard, form: str) -> None:
    async with aiohttp.ClientSession(connector=guarded_connector(()), trust_env=False) as session:
        with pytest.raises((aiohttp.ClientError, OSError, ValueError)):
            await session.get(form.format(port=heard.port), timeout=aiohttp.ClientTimeout(total=5))
    assert heard.requests == []


class Turns(AbstractResolver):
    """A resolver in an attacker's hand: harmless at first, this machine from then on, or all at once."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            {"hostname": host, "host": one, "port": port, "family": 10 if ":" in one else 2, "proto": 0, "flags": 0}
            for one in found
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "answers",
    [
        [["192.0.2.1"], ["127.0.0.1"]],
        [["192.0.2.1", "127.0.0.1"]],
        [["::ffff:127.0.0.1", "127.0.0.1"]],
        [["::1", "127.0.0.1", "0.0.0.0"]],
    ],
)
async def test_a_name_that_changes_its_address_leads_nowhere_inside(heard: Heard, answers: list[list[str]]) -> None:
    resolver = Turns(*answers)
    async with aiohttp.ClientSession(
        connector=guarded_connector((), resolver=resolver, use_dns_cache=False), trust_env=False
    ) as session:
        for _ in range(3):
            with pytest.raises((aiohttp.ClientError, OSError)):
                await session.get(f"http://agency.example:{heard.port}/", timeout=aiohttp.ClientTimeout(total=2))
    assert heard.requests == []


async def test_a_proxy_of_the_environment_is_not_used(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{heard.port}")
    connector = guarded_connector(parse_networks(["127.0.0.0/8"]))
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get("http://127.0.0.1:9/", timeout=aiohttp.ClientTimeout(total=2))
    assert heard.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1%eth0"])
def test_behind_a_proxy_an_address_inside_is_refused_where_it_is_written_out(host: str) -> None:
    with pytest.raises(AddressRefused):
        refuse_literal(host, ())


@pytest.mark.parametrize("host", ["8.8.8.8", "agency.example", "2130706433"])
def test_behind_a_proxy_a_name_is_the_proxys_to_look_up(host: str) -> None:
    refuse_literal(host, ())
