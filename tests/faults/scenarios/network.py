"""Networks that cut, delay, reorder, swallow and lie; on loopback, or in namespaces that the test makes."""

import datetime
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import trustme

from tests.faults.proxy import Proxy, Weather
from tests.faults.scenario import Scenarios
from tests.faults.world import Broken, Load, World
from tests.processes.harness import Borough, until
from tests.processes.ports import free_port

scenarios: Final = Scenarios("network")


def _through_proxies(world: World) -> tuple[Proxy, Proxy, Proxy]:
    """Put a proxy before each node, and one before the agencies."""
    proxies = []
    for borough in world.boroughs:
        behind = free_port()
        text = borough.config.read_text()
        borough.config.write_text(
            text.replace(f'address = "127.0.0.1:{borough.port}"', f'address = "127.0.0.1:{behind}"')
        )
        proxies.append(Proxy(borough.port, behind, world.chance).start())
    port = world.receiver.port
    world.receiver.port = free_port()
    proxies.append(Proxy(port, world.receiver.port, world.chance).start())
    for proxy in proxies:
        world.afterwards(proxy.stop)
    return proxies[0], proxies[1], proxies[2]


def _weathers(world: World, make: object, rounds: int = 3) -> None:
    """Change the weather, and back, under load."""
    proxies = _through_proxies(world)
    world.start()
    assert callable(make)
    with Load(world):
        for _ in range(rounds):
            proxy = world.chance.choice(proxies)
            proxy.change(make())
            world.counts["times"] += 1
            time.sleep(world.chance.uniform(0.3, 1.2))
            proxy.change(Weather())
            time.sleep(world.chance.uniform(0, 0.3))
    world.check()
    if not all(proxy.passed for proxy in proxies):
        raise Broken("nothing went through a proxy")


@scenarios.add("cut", "connections cut and refused, between nodes and to agencies", "all arrives once it is back")
def _cut(world: World) -> None:
    _weathers(world, lambda: Weather(cut=True))


@scenarios.add("torn", "connections cut after random bytes", "all arrives once")
def _torn(world: World) -> None:
    _weathers(world, lambda: Weather(drop=0.3), 4)


@scenarios.add("slow", "delay of 50 to 400 ms with jitter", "all arrives once")
def _slow(world: World) -> None:
    _weathers(world, lambda: Weather(delay_s=world.chance.uniform(0.05, 0.2), jitter=True))


@scenarios.add("reordered", "envelopes and calls overtake each other", "all arrives once, no fork is seen")
def _reordered(world: World) -> None:
    _weathers(world, lambda: Weather(reorder_s=0.8), 4)


@scenarios.add("half-open", "connections stay open and nothing comes through", "given up in time, all arrives")
def _half_open(world: World) -> None:
    _weathers(world, lambda: Weather(swallow_requests=True, swallow_answers=True))


@scenarios.add("answers-lost", "requests arrive and no answer comes back", "the same receipt again, all arrives once")
def _answers_lost(world: World) -> None:
    _weathers(world, lambda: Weather(swallow_answers=True))


# Namespaces: real interfaces, real routes.


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Namespaces:
    """A namespace for each node, joined by a cable; a second cable leads from Enfield to the agencies."""

    def __init__(self, world: World) -> None:
        self.names = {slug: f"ex{os.getpid() % 10_000}{slug[0]}" for slug in ("hackney", "enfield")}
        here, there = self.names["hackney"], self.names["enfield"]
        self.cable = (f"{here}x", f"{there}x")
        outside, inside = f"{there}o", f"{there}i"
        for name in self.names.values():
            _ip("netns", "add", name)
            world.afterwards(lambda name=name: _ip("netns", "del", name))
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", self.cable[0], "type", "veth", "peer", "name", self.cable[1])
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", there)
        for end, name, address in ((self.cable[0], here, "10.213.7.1/24"), (self.cable[1], there, "10.213.7.2/24")):
            _ip("link", "set", end, "netns", name)
            _ip("-n", name, "addr", "add", address, "dev", end)
            _ip("-n", name, "link", "set", end, "up")
        _ip("addr", "add", "10.213.8.1/24", "dev", outside)
        _ip("link", "set", outside, "up")
        _ip("-n", there, "addr", "add", "10.213.8.2/24", "dev", inside)
        _ip("-n", there, "link", "set", inside, "up")
        world.afterwards(lambda: subprocess.run(["ip", "link", "del", outside], check=False, capture_output=True))

    def enter(self, borough: Borough, slug: str) -> None:
        """Have a node run inside."""
        borough.program = ("ip", "netns", "exec", self.names[slug], sys.executable, "-m", "exchange.cli.main")

    def cable_up(self, up: bool) -> None:
        """Pull the cable, or put it back: no packet comes through, and nobody is told."""
        _ip("-n", self.names["hackney"], "link", "set", self.cable[0], "up" if up else "down")

    def one_way(self, slug: str, address: str, gone: bool) -> None:
        """Have a node's packets to an address vanish; what comes from there still arrives."""
        _ip("-n", self.names[slug], "route", "add" if gone else "del", "blackhole", f"{address}/32")


def _certificate(borough: Borough, authority: trustme.CA, *names: str, expired: bool = False) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2) if expired else None
    made = authority.issue_cert(*names, not_after=past) if past else authority.issue_cert(*names)
    for name, data in (
        ("tls.key", made.private_key_pem.bytes()),
        ("tls.crt", b"".join(item.bytes() for item in made.cert_chain_pems)),
    ):
        draft = borough.directory / f"{name}.draft"
        draft.write_bytes(data)
        draft.replace(borough.directory / name)


def _tls_pair(world: World, authority: trustme.CA, places: dict[str, str]) -> Path:
    """Have the nodes serve TLS at other places; they are registered with each other anew."""
    file = world.root / "ca.pem"
    authority.cert_pem.write_to_path(file)
    for borough in world.boroughs:
        host = places[borough.directory.name]
        text = borough.config.read_text()
        text = text.replace(f'"127.0.0.1:{borough.port}"', f'"{host}:{borough.port}"', 1) if host[0] == "1" else text
        text = text.replace(f"http://127.0.0.1:{borough.port}", f"https://{host}:{borough.port}")
        borough.config.write_text(text)
        _certificate(borough, authority, host)
        borough.configure("listen", certificate="tls.crt", key="tls.key")
    return file


def _introduce(world: World, ca_file: Path, *networks: str) -> None:
    options = [item for network in networks for item in ("--allow-network", network)]
    for here, there in (world.boroughs, world.boroughs[::-1]):
        here.trusts(there, "--ca-file", ca_file, *options)


def _in_namespaces(world: World) -> Namespaces:
    spaces = Namespaces(world)
    authority = trustme.CA(organization_name="Fictitious Borough CA")
    ca_file = _tls_pair(world, authority, {"hackney": "10.213.7.1", "enfield": "10.213.7.2"})
    for borough in world.boroughs:
        spaces.enter(borough, borough.directory.name)
    world.receiver.host = "10.213.8.1"
    world.start()
    _introduce(world, ca_file, "10.213.7.0/24")
    for row in world.enfield.api("GET", "/v1/agencies")["items"]:
        world.enfield.api("DELETE", f"/v1/agencies/{row['id']}")
        wanted = {"kind": row["kind"], "url": world.receiver.url(row["kind"]), "networks": ["10.213.8.0/24"]}
        world.receiver.know(row["kind"], world.enfield.api("POST", "/v1/agencies", wanted)["secret"])
    return spaces


@scenarios.add(
    "cable", "cable between two namespaces pulled under load", "all arrives once it is back", needs_root=True
)
def _cable(world: World) -> None:
    spaces = _in_namespaces(world)
    with Load(world):
        for _ in range(2):
            time.sleep(world.chance.uniform(0.2, 0.6))
            spaces.cable_up(False)
            world.counts["times"] += 1
            time.sleep(world.chance.uniform(0.3, 1.5))
            spaces.cable_up(True)
    world.check()


@scenarios.add(
    "one-way",
    "packets of one node to the other vanish, not the other way",
    "all arrives once it is back",
    needs_root=True,
)
def _one_way(world: World) -> None:
    spaces = _in_namespaces(world)
    with Load(world):
        for slug, address in world.chance.sample([("hackney", "10.213.7.2"), ("enfield", "10.213.7.1")], 2):
            time.sleep(world.chance.uniform(0.2, 0.6))
            spaces.one_way(slug, address, True)
            world.counts["times"] += 1
            time.sleep(world.chance.uniform(0.3, 1.5))
            spaces.one_way(slug, address, False)
    world.check()


def _waits(world: World, message_id: str, *words: str) -> None:
    """A message is not received, and the sender is told why."""

    def told() -> bool:
        return any(word in str(world.hackney.status(message_id)["last_error"]) for word in words)

    until(f"the sender says {' or '.join(words)}", told)
    if any(section["rung"] for section in world.hackney.status(message_id)["sections"]):
        raise Broken("it was sent all the same")


@scenarios.add(
    "dns",
    "the peer's name leads nowhere, then to another machine, then home",
    "told why, then all arrives",
    needs_root=True,
)
def _dns(world: World) -> None:
    authority = trustme.CA(organization_name="Fictitious Borough CA")
    name = "enfield-exchange.example"
    hosts = world.root / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {name}\n")
    ca_file = _tls_pair(world, authority, {"hackney": "127.0.0.1", "enfield": name})
    # A mount namespace of the node's own: its /etc/hosts is the test's.
    world.hackney.program = (
        *("unshare", "--mount", "--", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"),
        *world.hackney.program,
    )
    world.start()
    _introduce(world, ca_file, "127.0.0.0/8")
    world.sender.send(world.form())
    world.settle()
    hosts.write_text("127.0.0.1 localhost\n")
    world.hackney.stop()
    world.start(world.hackney)
    world.counts["times"] += 2
    message_id = world.sender.send(world.form())
    _waits(world, message_id, "cannot be reached")
    # Another machine, with a certificate of the same authority for its own name.
    _certificate(world.enfield, authority, "another.example")
    hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {name}\n")
    world.hackney.stop()
    world.enfield.stop()
    world.start()
    _waits(world, message_id, "certificate")
    _certificate(world.enfield, authority, name)
    world.check()


@scenarios.add(
    "certificate", "TLS certificate expired, then of another authority, then good", "told why, then all arrives"
)
def _expired(world: World) -> None:
    authority = trustme.CA(organization_name="Fictitious Borough CA")
    ca_file = _tls_pair(world, authority, {"hackney": "127.0.0.1", "enfield": "127.0.0.1"})
    world.start()
    _introduce(world, ca_file)
    world.settle()
    for make in (
        lambda: _certificate(world.enfield, authority, "127.0.0.1", expired=True),
        lambda: _certificate(world.enfield, trustme.CA(organization_name="Another CA"), "127.0.0.1"),
    ):
        make()
        world.enfield.stop()
        world.start(world.enfield)
        world.counts["times"] += 1
        message_id = world.sender.send(world.form())
        _waits(world, message_id, "certificate")
    _certificate(world.enfield, authority, "127.0.0.1")
    world.check()
