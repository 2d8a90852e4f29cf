"""Two whole nodes in one event loop: real stores, real sockets on loopback, and a clock that only a test moves."""

import asyncio
import base64
import dataclasses
import io
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import structlog

from exchange.crypto.rest import StoreKey
from exchange.crypto.signing import SigningKeys
from exchange.node.app import open_services, prepare, serve, short_socket_path
from exchange.node.config import Configuration, load_configuration
from exchange.node.keyring import Keyring
from exchange.node.logs import configure_logs
from exchange.node.peer_client import ENVELOPE_TYPE
from exchange.node.services import Services
from exchange.schema.wire import Card, ProvenStatement
from exchange.store.tables import metadata
from tests import databases
from tests.node.handmade import Borough, read_card

T = TypeVar("T")

NOW_MS = 1_795_449_600_000  # 2026-11-23 16:00 UTC
DEADLINE_S = 30.0
EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
HACKNEY, ENFIELD = "E09000012", "E09000010"
#: What a node changes by itself while it goes on trying to reach those who do not listen.
RESTLESS = frozenset({"handovers", "lanes", "outbox"})

#: An agency that fails is tried again soon, and for as long as a test may take.
RETRY_S = [*[0.05] * 60, 3600]

_CONFIGURATION = """\
[node]
origin = "{origin}"
area = "{area}"
name = "{origin}"
url = "http://127.0.0.1:{port}"
[listen]
address = "127.0.0.1:{port}"
[local]
address = "127.0.0.1:{local_port}"
[delivery]
backoff_base_s = 0.05
backoff_cap_s = 0.2
peer_timeout_s = 5
agency_timeout_s = 5
agency_retry_s = {retry_s}
[store]
url = "{store}"
"""


@dataclass
class Clock:
    """Time that only a test moves, until it lets it run: what waits for a time would else wait for ever."""

    now_ms: int = NOW_MS
    _running_since: float | None = None

    def __call__(self) -> int:
        if self._running_since is None:
            return self.now_ms
        return self.now_ms + round((time.monotonic() - self._running_since) * 1000)

    def run(self) -> None:
        """Let time run."""
        self._running_since = time.monotonic()

    def stop(self) -> None:
        """Let it stand still again."""
        self.now_ms, self._running_since = self(), None


async def until(what: str, condition: Callable[[], Awaitable[T]], deadline_s: float = DEADLINE_S) -> T:
    """Wait until `condition` gives something true, and return that."""
    async with asyncio.timeout(deadline_s) as waiting:
        try:
            while not (found := await condition()):  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            assert not waiting.expired(), f"after {deadline_s:g} seconds still waiting until {what}"
            raise
    return found


def form(to_area: str, from_area: str = HACKNEY) -> bytes:
    """The case study, from one area to another."""
    document = json.loads((EXAMPLES / "case-study-j.json").read_bytes())
    document["referral"] |= {"from_area": from_area, "to_area": to_area}
    return json.dumps(document).encode()


@contextmanager
def log_lines() -> Iterator[io.StringIO]:
    """The log of all nodes of the test, as `configure_logs` writes it."""
    lines = io.StringIO()
    configure_logs("debug")
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=lines))
    yield lines
    structlog.reset_defaults()


@dataclass
class Node:
    """A running node."""

    services: Services
    clock: Clock
    http: aiohttp.ClientSession
    local_http: aiohttp.ClientSession
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def origin(self) -> str:
        return self.services.configuration.origin

    @property
    def url(self) -> str:
        return self.services.configuration.tables.node.url

    @property
    def directory(self) -> Path:
        return self.services.configuration.path.parent

    def count(self, name: str) -> int:
        """A counter."""
        return self.services.counters.values.get(name, 0)

    async def post(self, envelope: bytes | io.BytesIO, content_type: str = ENVELOPE_TYPE) -> tuple[int, bytes]:
        """Post to the public listener as a peer does."""
        headers = {"content-type": content_type}
        async with self.http.post(f"{self.url}/v1/envelopes", data=envelope, headers=headers) as answer:
            return answer.status, await answer.read()

    async def card(self) -> Card:
        """The card that the public listener gives to everybody."""
        return read_card(await self.proven_card())

    async def proven_card(self) -> ProvenStatement:
        async with self.http.get(f"{self.url}/v1/card") as answer:
            return _proven(await answer.json())

    async def local(self, method: str, path: str, body: Any = None, data: bytes | None = None) -> tuple[int, Any]:
        """Ask the local API over its Unix socket: the status and the document."""
        content = data if data is not None else json.dumps(body).encode() if body is not None else None
        async with self.local_http.request(method, f"http://local{path}", data=content) as answer:
            return answer.status, await answer.json(content_type=None)

    async def know(self, borough: "Borough | Node", *, verified: bool = True) -> None:
        """Register a peer."""
        if isinstance(borough, Borough):
            card, fingerprint = borough.card(), borough.fingerprint
            borough.shown = len(borough.statements)
        else:
            card = await borough.proven_card()
            fingerprint = (await borough.local("GET", "/v1/card"))[1]["fingerprint"]
        body: dict[str, Any] = {"card": card_file(card)}
        status, document = await self.local(
            "POST", "/v1/peers", body | ({"fingerprint": fingerprint} if verified else {})
        )
        assert status == 201, document

    async def send(self, to_area: str) -> str:
        """Send the case study to an area; return the message's id."""
        status, document = await self.local("POST", f"/v1/messages/to/{to_area}", data=form(to_area))
        assert status == 201, document
        return str(document["id"])

    async def status(self, message_id: str) -> Any:
        """What the node says of a message."""
        return (await self.local("GET", f"/v1/messages/{message_id}"))[1]

    async def reached(self, message_id: str, rung: str) -> Any:
        """Wait until all sections of a message have reached a rung."""

        async def reached() -> Any:
            _, document = await self.local("GET", f"/v1/messages/{message_id}?wait={rung}&timeout_s=1")
            return document if document["reached"] else None

        return await until(f"{message_id} is {rung}", reached)

    async def reached_by(self, message_id: str, kind: str, rung: str) -> None:
        """Wait until the sections for one kind of agency stand on a rung."""

        async def reached() -> bool:
            found = (await self.status(message_id))["sections"]
            return all(item["rung"] == rung for item in found if item["agency"] == kind)

        await until(f"{message_id} is {rung} at {kind}", reached)

    async def trust(self, origin: str) -> str:
        """What this node thinks of a peer."""
        return str((await self.local("GET", f"/v1/peers/{origin}"))[1]["trust"])

    async def alarms(self, origin: str) -> list[dict[str, str]]:
        """The alarms about a peer, newest first."""
        found = (await self.local("GET", "/v1/alarms"))[1]["items"]
        return [alarm for alarm in found if alarm["origin"] == origin]

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Look into the store from outside."""
        return databases.rows(self.services.configuration.store_url, sql, *parameters)

    def kept(self) -> dict[str, int]:
        """How many rows each table has, but for those that a node changes by itself."""
        names = metadata.tables.keys() - RESTLESS
        return {name: self.rows(f"SELECT count(*) FROM {name}")[0][0] for name in sorted(names)}


def _proven(document: dict[str, str]) -> ProvenStatement:
    return ProvenStatement(statement=base64.b64decode(document["statement"]), proof=document["proof"])


def card_file(card: ProvenStatement) -> dict[str, str]:
    """A card as a request of the local API takes it."""
    return {"statement": base64.b64encode(card.statement).decode(), "proof": card.proof}


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody else is given for as long as it lasts, and that a server may nevertheless listen on."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def configure(
    directory: Path, area: str, origin: str, ports: tuple[int, int] = (7400, 7480), more: str = ""
) -> Configuration:
    """A node's configuration in a directory of its own; `more` is the text of further tables."""
    directory.mkdir(parents=True)
    path = directory / "exchange.toml"
    path.write_text(
        _CONFIGURATION.format(
            origin=origin,
            area=area,
            port=ports[0],
            local_port=ports[1],
            store=databases.url_for_a_node(),
            retry_s=RETRY_S,
        )
        + more
    )
    return load_configuration(path)


@asynccontextmanager
async def opened(directory: Path, clock: Clock) -> AsyncIterator[Services]:
    """The store of a node and what goes with it, in a directory of its own; nothing runs."""
    configuration = configure(directory, HACKNEY, "exchange.hackney.example")
    keyring = Keyring(configuration.origin, SigningKeys.generate(), StoreKey.random())
    async with AsyncExitStack() as stack:
        yield dataclasses.replace(await open_services(stack, configuration, keyring), now_ms=clock)


@asynccontextmanager
async def running(directory: Path, area: str, origin: str, clock: Clock, more: str = "") -> AsyncIterator[Node]:
    """Run a node in a directory of its own."""
    with reserved_port() as port, reserved_port() as local_port:
        configuration = configure(directory, area, origin, (port, local_port), more)
        async with serving(configuration, clock) as node:
            yield node


@asynccontextmanager
async def serving(configuration: Configuration, clock: Clock, keyring: Keyring | None = None) -> AsyncIterator[Node]:
    """Run a node of a configuration; its keys are made up where none are given."""
    keyring = keyring or Keyring(configuration.origin, SigningKeys.generate(), StoreKey.random())
    async with AsyncExitStack() as stack:
        services = dataclasses.replace(await open_services(stack, configuration, keyring), now_ms=clock)
        await prepare(services)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        connector = aiohttp.UnixConnector(short_socket_path(configuration.socket_path))
        local_http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        node = Node(services, clock, http, local_http)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(serve(services, node.stop))

            async def answers() -> bool:
                try:
                    return (await node.local("GET", "/v1/health"))[0] == 200
                except aiohttp.ClientConnectorError:
                    assert not serving.done(), "the node did not start"
                    return False

            await until("the node answers", answers)
            try:
                yield node
            finally:
                node.stop.set()


@dataclass
class Pair:
    """Two nodes that have verified each other."""

    hackney: Node
    enfield: Node


@asynccontextmanager
async def running_pair(directory: Path, clock: Clock, more: str = "") -> AsyncIterator[Pair]:
    """Run Hackney and Enfield, each registered and verified at the other."""
    async with (
        running(directory / "hackney", HACKNEY, "exchange.hackney.example", clock, more) as hackney,
        running(directory / "enfield", ENFIELD, "exchange.enfield.example", clock, more) as enfield,
    ):
        await hackney.know(enfield)
        await enfield.know(hackney)
        yield Pair(hackney, enfield)
