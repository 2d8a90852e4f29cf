"""Put a node together, run it, and take it apart again."""

import asyncio
import gc
import grp
import os
import resource
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from exchange.crypto.checkpoint import CheckpointCache
from exchange.crypto.errors import KeystoreError
from exchange.crypto.statement import parse_statement
from exchange.handover.retries import ASKED_CAP_S
from exchange.handover.routing_review import doubts
from exchange.node import openapi
from exchange.node.acknowledging import Acknowledging
from exchange.node.admission import Admission
from exchange.node.agencies_api import AgenciesApi
from exchange.node.agency_api import AgencyApi
from exchange.node.agency_attachments import AgencyAttachments
from exchange.node.agency_delivery import AgencyDeliveries
from exchange.node.agency_door import AgencyDoor
from exchange.node.agency_keys_api import AgencyKeysApi
from exchange.node.agency_listener import AgencyListener
from exchange.node.agency_sections_api import AgencySectionsApi
from exchange.node.agency_tokens import AgencyTokensApi
from exchange.node.agency_watch import AgencyWatch
from exchange.node.attaching import Attaching
from exchange.node.attachment_lanes import attachment_lane
from exchange.node.attachment_opening import AttachmentOpenings
from exchange.node.attachments_api import AttachmentsApi
from exchange.node.card_refresh import CardRefresh
from exchange.node.cards import own_card
from exchange.node.comparing import Comparing
from exchange.node.config import Configuration, split_address
from exchange.node.continuity import Continuity
from exchange.node.deadline_watch import DeadlineWatch
from exchange.node.delivery import Dispatcher
from exchange.node.directory import Directory
from exchange.node.directory_api import DirectoryApi
from exchange.node.endpoints import Endpoints
from exchange.node.epochs import (
    card_is_current,
    keep_current,
    load_sealing_keys,
    renew_card,
    turn_epoch,
    write_card_file,
)
from exchange.node.errors import CannotListen, ConfigurationInvalid, StoreOlder
from exchange.node.gate import Gatekeeper
from exchange.node.gate_api import GateApi
from exchange.node.handovers_api import HandoversApi
from exchange.node.hardening import Protection
from exchange.node.inbound import Inbound
from exchange.node.invitations import Invitations
from exchange.node.keyring import Keyring, open_keystore_with
from exchange.node.keys_api import KeysApi
from exchange.node.links import Links
from exchange.node.links_api import LinksApi
from exchange.node.listener import MOST_CONNECTIONS, LocalSite, LocalTcpSite, PublicSite
from exchange.node.local_api import LocalApi
from exchange.node.order_watch import OrderWatch
from exchange.node.orders_api import OrdersApi
from exchange.node.outbound import Outbound
from exchange.node.pages.acknowledge import AcknowledgePages
from exchange.node.pages.selftest import SelfTestPages
from exchange.node.pairings import Pairings
from exchange.node.passphrase import Ask
from exchange.node.peer_api import PeerApi
from exchange.node.peer_client import PeerClient
from exchange.node.peers_api import PeersApi
from exchange.node.pulling import Pulling
from exchange.node.registration_api import RegistrationApi
from exchange.node.rejoin_api import RejoinApi, joined_routes
from exchange.node.rejoining import Rejoining
from exchange.node.relocking import find_key
from exchange.node.replicas import Replicas, join, part
from exchange.node.rerouting import Rerouting
from exchange.node.rotation import settle_rotation
from exchange.node.rounds import go_round
from exchange.node.routing_api import RoutingApi
from exchange.node.sections_api import SectionsApi
from exchange.node.selftest import SelfTest
from exchange.node.selftest_api import SelfTestApi
from exchange.node.services import Changes, Counters, Revoked, Services
from exchange.node.staging import forget_stale
from exchange.node.telling import Telling
from exchange.node.tls import own_certificates
from exchange.node.wall import Wall
from exchange.schema.catalogue import default_catalogue
from exchange.schema.deadlines import Deadlines, default_deadlines, load_deadlines
from exchange.schema.errors import DeadlinesInvalid
from exchange.schema.wire import card_decoder, decode_wire
from exchange.store.agencies import all_agencies
from exchange.store.errors import NotFound
from exchange.store.keys import last_card
from exchange.store.locking import lock_store
from exchange.store.log import log_size
from exchange.store.opening import open_store, store_exists
from exchange.store.outbox import enqueue_card
from exchange.store.peers import all_peers
from exchange.store.restored import end_rejoining, is_restored
from exchange.store.transaction import Transaction

_STALE_EVERY_S: Final = 3600.0
_DAY_MS = 86_400_000


def wall_clock_ms() -> int:
    """The time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def unlock(configuration: Configuration, ask: Ask | None = None) -> Keyring:
    """Open the node's keystore with the passphrase that the configuration points at, or that a person is asked for.

    Raises:
        ConfigurationInvalid: a file cannot be read.
        WrongPassphrase: the passphrase does not open it.
        KeystoreCorrupt: it is not a keystore.
    """
    found = find_key(configuration, ask)
    found.passphrase.wipe()
    return open_keystore_with(configuration.keystore_path, found.key, configuration.origin)


async def open_services(
    stack: AsyncExitStack, configuration: Configuration, keyring: Keyring, protection: Protection | None = None
) -> Services:
    """Open the store and what else a node needs; the stack closes it."""
    lock = None
    if configuration.store_file is None:
        lock = lock_store(configuration.lock_path)
        stack.callback(lock.close)
    store = await open_store(configuration.store_url, keyring.sign_checkpoint, wall_clock_ms)
    stack.push_async_callback(store.close)
    services = Services(
        deadlines=_deadlines(configuration),
        configuration=configuration,
        now_ms=wall_clock_ms,
        store=store,
        keyring=keyring,
        certificates=own_certificates(configuration, keyring.store_key),
        catalogue=default_catalogue(),
        log=structlog.get_logger(),
        checkpoints=CheckpointCache(),
        changes=Changes(),
        counters=Counters(),
        revoked=Revoked(configuration.revocation_path),
        protection=protection or Protection(),
        admission=Admission(configuration.tables.limits),
    )
    if lock is not None:
        await join(services, lock)
        stack.push_async_callback(part, services)
    await load_sealing_keys(services)
    return services


def _deadlines(configuration: Configuration) -> Deadlines:
    """The deadlines that the configuration names, or those that are shipped.

    Raises:
        ConfigurationInvalid: the file cannot be read, or says something that cannot be.
    """
    name = configuration.tables.handover.deadlines
    if not name:
        return default_deadlines()
    path = configuration.resolve(name)
    try:
        return load_deadlines(path.read_bytes(), default_catalogue())
    except OSError as error:
        raise ConfigurationInvalid(f"handover.deadlines: cannot read {path}: {error.strerror}") from None
    except DeadlinesInvalid as error:
        raise ConfigurationInvalid(f"{path}: {error}", hint=error.hint) from None


async def prepare(services: Services, *, old_store: bool = False) -> None:
    """Give a node a sealing key and a card where it has none in force, once its signing keys are settled.

    Raises:
        ConfigurationInvalid: the store belongs to another node.
        StoreOlder: the keys were restored, and the store is older than they are; `old_store` takes it all the same.
        KeystoreError: the keystore was locked anew since it was opened.
    """
    await _refuse_another_store(services)
    await _refuse_another_keystore(services)
    await _refuse_older_store(services, old_store)
    await settle_rotation(services)
    if await turn_epoch(services) or not await card_is_current(services):
        await renew_card(services, None)
    else:
        await write_card_file(services)


async def rejoin(services: Services, stop: asyncio.Event) -> bool:
    """Ask the peers what the store lacks, before anything is signed; False where the node was stopped before that.

    Raises:
        ConfigurationInvalid: the store belongs to another node.
        LogContradicted: two logs in this node's name were seen.
        BackupOutdated: the signing keys were changed after the backup.
        CannotListen: the local socket cannot be made.
        StoreInUse: another process of the node runs on the store.
    """
    await _refuse_another_store(services)
    await _refuse_another_keystore(services)
    rejoining = Rejoining(services)
    async with AsyncExitStack() as stack:
        application = RejoinApi(services, rejoining).application()
        await _start(services.configuration, [await _local_site(stack, services.configuration, application)])
        return await rejoining.run(stop) is not None


async def _refuse_another_store(services: Services) -> None:
    """A log has one origin and one area; to sign on under others is a fork in the eyes of every peer."""
    try:
        entry = await own_card(services)
    except NotFound:
        return
    card = decode_wire(card_decoder, parse_statement(entry.statement).body)
    node = services.configuration.tables.node
    if (card.origin, card.area) != (node.origin, node.area):
        raise ConfigurationInvalid(
            f"the store is that of {card.origin}, {card.area}; the configuration names {node.origin}, {node.area}",
            hint="Put node.origin and node.area back as they were: they never change. Nothing was changed.",
        )


async def _refuse_another_keystore(services: Services) -> None:
    """Only who holds the store's lock changes the passphrase; before that, somebody may have."""
    file = services.keyring.file
    if file is not None and not await asyncio.to_thread(file.fits):
        raise KeystoreError("the passphrase was changed while the node was starting", hint="Start the node again.")


async def _refuse_older_store(services: Services, old_store: bool) -> None:
    """A log that lacks what was signed goes on as another one, as a thief's would: a fork in the eyes of every peer."""
    least, size = services.keyring.least_log_size, await services.store.read(log_size)
    if size < least and not old_store:
        raise StoreOlder(
            f"the store has {size} statements, and the node had signed {least} when its keys were backed up"
        )
    if size < least:
        services.log.warning("the node goes on with an old store: peers will see a fork")
    if old_store:
        await services.store.write(end_rejoining)
    if least:
        await asyncio.to_thread(services.keyring.accept_store)


async def _greet_peers(services: Services, dispatcher: Dispatcher) -> None:
    """Tell every peer that this node is up: what waits for it there is then tried at once."""

    async def operation(tx: Transaction) -> list[str]:
        lanes = []
        _, position = await last_card(tx)
        now_ms = services.now_ms()
        for row in await all_peers(tx):
            if row.state == "verified":
                lanes.append(f"peer:{row.origin}")
                await enqueue_card(tx, lanes[-1], position, now_ms, now_ms + 30 * _DAY_MS)
        return lanes

    for lane in await services.store.write(operation):
        dispatcher.wake(lane)


async def _doubt_rules(services: Services) -> None:
    """Tell the admin of routing rules that come to nothing."""
    here = [row.name for row in await services.store.read(all_agencies)]
    for finding in doubts(services.configuration.tables.routing, services.catalogue, here):
        services.log.warning("routing", reason=f"routing.{finding.path}: {finding.message}")


async def run_node(
    configuration: Configuration,
    keyring: Keyring,
    protection: Protection | None = None,
    *,
    old_store: bool = False,
    ask_peers: bool = False,
) -> None:
    """Run a node until SIGTERM or SIGINT, then drain; where its store is of a backup, or `ask_peers`, it first rejoins.

    Raises:
        CannotListen: an address is in use.
        ConfigurationInvalid: there is no store, or it is another node's.
        StoreOlder: the keys were restored, and the store is older than they are, unless `old_store`.
        StoreError: the store cannot be opened.
    """
    if not await store_exists(configuration.store_url):
        # An empty store in its place would begin the log anew: a fork in the eyes of every peer.
        raise ConfigurationInvalid(
            f"there is no store at {configuration.store_file or configuration.store_url}",
            hint="Correct store.url, or restore the store from its backup.",
        )
    # Strangers who take all of the listener's connections must leave enough for the rest of the node.
    files, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY:
        wanted = 8 * MOST_CONNECTIONS
        wanted = wanted if most_files == resource.RLIM_INFINITY else min(wanted, most_files)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, wanted), most_files))
    os.umask(0o077)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with AsyncExitStack() as stack:
        services = await open_services(stack, configuration, keyring, protection)
        if services.protection.reason:
            services.log.warning("memory is not protected", reason=services.protection.reason)
        lacks = ask_peers or keyring.must_rejoin or await services.store.read(is_restored)
        if lacks and not old_store and not await rejoin(services, stop):
            return
        await prepare(services, old_store=old_store)
        # What is loaded by now stays until the end: the collector need not walk it again and again. Nor need it look so
        # often: what a message makes is gone with its last reference.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        await serve(services, stop)
    structlog.get_logger().info("node has stopped", origin=configuration.origin)


async def serve(services: Services, stop: asyncio.Event) -> None:
    """Listen and deliver until `stop` is set, then drain.

    Raises:
        CannotListen: an address is in use.
    """
    configuration = services.configuration
    async with AsyncExitStack() as stack:
        client = PeerClient(services)
        stack.push_async_callback(client.close)
        continuity = Continuity(services.store, services.now_ms)
        inbound = Inbound(services, continuity, client.fetch_consistency)
        cards = CardRefresh(services, continuity, inbound, client, lambda lane: dispatcher.wake(lane))
        inbound.unproven = cards.soon
        telling = Telling(services, lambda lane: dispatcher.wake(lane))
        comparing = Comparing(services, continuity, inbound, client)
        inbound.ask, inbound.told, inbound.forked = cards.refresh, comparing.take, telling.soon
        outbound = Outbound(services, continuity, inbound, client, cards)
        attaching, openings = Attaching(services, outbound), AttachmentOpenings(services)
        endpoints = Endpoints(services)
        agencies = AgencyDeliveries(services, endpoints)
        stack.push_async_callback(agencies.close)
        performing = {
            "peer": outbound.perform,
            "attachment": attaching.perform,
            "opening": openings.perform,
            "agency": agencies.perform,
            "route": Rerouting(services).perform,
        }
        dispatcher = Dispatcher(services, performing, asked_caps_s={"agency": ASKED_CAP_S})
        inbound.attachments.wake = dispatcher.wake
        endpoints.wake, endpoints.heard_from = dispatcher.wake, dispatcher.heard_from
        pulling = Pulling(services, agencies, dispatcher.wake)
        agencies.offer, agency_watch = pulling.offer, AgencyWatch(services, pulling)
        watch = DeadlineWatch(services)
        watch.wake = dispatcher.wake
        order_watch = OrderWatch(services)
        inbound.destroyed = order_watch.woken.set

        def accepted(origin: str, lanes: frozenset[str]) -> None:
            dispatcher.heard_from(f"peer:{origin}")
            dispatcher.heard_from(attachment_lane(origin))
            for lane in lanes:
                dispatcher.wake(lane)

        pairings = Pairings(services, client)
        peers_api = PeersApi(services, dispatcher, continuity, comparing)
        peers_api.explained = cards.soon
        registration = RegistrationApi(services, Invitations(services, client), pairings, peers_api)
        peers = PeerApi(services, inbound, accepted, more=registration.public_routes())
        wall = Wall(services, peers.connections, dispatcher)
        await wall.raise_up()

        def changed(origin: str, state: str) -> None:
            continuity.forget(origin)
            if state == "verified":
                dispatcher.heard_from(f"peer:{origin}")
                dispatcher.wake(f"peer:{origin}")
                dispatcher.wake(attachment_lane(origin))

        directory = Directory(services, client, changed)
        selftest = SelfTest(services, endpoints)
        gatekeeper = Gatekeeper(services)
        acknowledging = Acknowledging(services, cards.has_current_key, dispatcher.wake)
        links = Links(services, acknowledging)
        orders = OrdersApi(services, dispatcher.wake, order_watch.woken.set)
        more = [
            *SelfTestApi(selftest).routes(),
            *SelfTestPages(services, selftest).routes(),
            *GateApi(services, dispatcher, gatekeeper).routes(),
            *orders.routes(),
            *AgencyKeysApi(services, dispatcher, agencies).routes(),
            *KeysApi(services, dispatcher, client).routes(),
            *registration.local_routes(),
            *DirectoryApi(services, directory).routes(),
            *AgenciesApi(services, dispatcher, endpoints).routes(),
            *AttachmentsApi(services, dispatcher).routes(),
            *AgencyTokensApi(services).routes(),
            *SectionsApi(services, acknowledging).routes(),
            *LinksApi(links).routes(),
            *HandoversApi(services).routes(),
            *RoutingApi(services, dispatcher).routes(),
            *joined_routes(services),
            *openapi.routes(),
        ]
        local = LocalApi(services, dispatcher, peers_api, agencies, endpoints, cards, wall, more)
        agency_door = AgencyDoor(services)
        apis = AgencyApi(services, pulling), AgencySectionsApi(acknowledging, orders)
        beside = await _agency_sites(stack, services, agency_door, *apis, links)
        sites = await _listen(stack, configuration, peers, local, wall, beside)
        async with asyncio.TaskGroup() as group:
            group.create_task(dispatcher.run(stop))
            group.create_task(keep_current(services, dispatcher, stop))
            group.create_task(cards.run(stop))
            group.create_task(endpoints.run(stop))
            group.create_task(watch.run(stop))
            group.create_task(order_watch.run(stop))
            group.create_task(agency_watch.run(stop))
            group.create_task(directory.run(stop))
            group.create_task(gatekeeper.run(stop))
            group.create_task(wall.run(stop))
            group.create_task(agency_door.run(stop))
            group.create_task(telling.run(stop))
            group.create_task(comparing.run(stop))
            group.create_task(pairings.run(stop))
            group.create_task(Replicas(services, dispatcher).run(stop))
            group.create_task(services.admission.run(services, stop))
            group.create_task(go_round(services, lambda: forget_stale(services), asyncio.Event(), _STALE_EVERY_S, stop))
            await _greet_peers(services, dispatcher)
            await _doubt_rules(services)
            services.log.info("node is ready", origin=configuration.origin, address=configuration.tables.listen.address)
            await stop.wait()
            services.log.info("node is draining", origin=configuration.origin)
            pulling.stop()
            for site in sites:
                await site.stop()


async def _listen(
    stack: AsyncExitStack,
    configuration: Configuration,
    peers: PeerApi,
    local: LocalApi,
    wall: Wall,
    beside: Sequence[web.BaseSite],
) -> list[web.BaseSite]:
    tables = configuration.tables
    public = await _runner(stack, peers.application())
    host, port = split_address(tables.listen.address)
    sites: list[web.BaseSite] = [PublicSite(public, host, port, peers.connections, wall.door), *beside]
    if tables.listen.open_address:
        host, port = split_address(tables.listen.open_address)
        strangers = await _runner(stack, peers.application(for_strangers=True))
        sites.append(PublicSite(strangers, host, port, peers.open_connections, wall.open_door))
    sites.append(await _local_site(stack, configuration, local.application(needs_token=False)))
    if tables.local.address:
        host, port = split_address(tables.local.address)
        sites.append(LocalTcpSite(await _runner(stack, local.application(needs_token=True)), host, port))
    await _start(configuration, sites)
    return sites


async def _agency_sites(
    stack: AsyncExitStack,
    services: Services,
    door: AgencyDoor,
    asked: AgencyApi,
    said: AgencySectionsApi,
    links: Links,
) -> list[web.BaseSite]:
    """The listener for agencies, where the configuration has one."""
    if not services.configuration.tables.agencies.address:
        return []
    listener = AgencyListener(services)
    host, port = split_address(services.configuration.tables.agencies.address)
    routes = [*asked.routes(), *said.routes(), *AgencyAttachments(services).routes()]
    open_routes = [*asked.open_routes(), *AcknowledgePages(links, listener.guessed).open_routes()]
    # An agency that waits and goes is waited for no more.
    runner = await _runner(stack, listener.application(routes, open_routes), handler_cancellation=True)
    return [PublicSite(runner, host, port, listener.connections, door.door)]


async def _local_site(
    stack: AsyncExitStack, configuration: Configuration, application: web.Application
) -> web.BaseSite:
    path = configuration.socket_path
    with suppress(FileNotFoundError):
        path.unlink()
    return LocalSite(await _runner(stack, application), short_socket_path(path))


async def _start(configuration: Configuration, sites: Sequence[web.BaseSite]) -> None:
    for site in sites:
        try:
            await site.start()
        except OSError as error:
            # asyncio puts the address before the system's own words, and aiohttp names the site as a URL.
            reason = str(error.strerror or error).rpartition(": ")[2]
            place = site.name.removeprefix("http://unix:").rstrip(":") if "unix:" in site.name else site.name
            raise CannotListen(f"cannot listen on {place}: {reason}") from None
    if configuration.tables.local.group:
        _open_to_group(configuration.socket_path, configuration.tables.local.group)


def _open_to_group(path: Path, group: str) -> None:
    """Let the accounts of a group open the socket, which was made for its owner alone."""
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(0o660)
    except KeyError:
        raise ConfigurationInvalid(f"local.group: there is no group {group}", hint="Make it, or correct it.") from None
    except PermissionError:
        hint = (
            f"The node's account must be in it: usermod --append --groups {group} ACCOUNT, then start the node again."
        )
        raise ConfigurationInvalid(
            f"local.group: the node's account may not give {path} to {group}", hint=hint
        ) from None


async def _runner(
    stack: AsyncExitStack, application: web.Application, *, handler_cancellation: bool = False
) -> web.AppRunner:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=10, handler_cancellation=handler_cancellation)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


def short_socket_path(path: Path) -> str:
    """A path to a Unix socket that fits the 108 bytes that the kernel allows, through the directory's descriptor."""
    if len(os.fsencode(path)) < 100:
        return str(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    return f"/proc/self/fd/{descriptor}/{path.name}"
