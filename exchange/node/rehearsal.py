"""Rehearse a restore: make a node of a backup where it can reach nobody, let it run, and look whether all is there.

* The copy runs in a process without any network: see `sandbox`. What it signs never leaves it.
* Its keystore has a passphrase that is never written down; the directory is deleted at the end.
* The clock is the real one: the report says how old the backup is, and how long it took until the node answered.
"""

import asyncio
import json
import secrets
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from exchange.crypto.checkpoint import parse_checkpoint
from exchange.crypto.errors import ArchiveCorrupt, CryptoError
from exchange.crypto.keystore import Argon2Parameters
from exchange.crypto.merkle import verify_consistency
from exchange.crypto.names import context
from exchange.crypto.rest import open_at_rest
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret
from exchange.crypto.signing import fingerprint
from exchange.errors import ExchangeError
from exchange.node.app import open_services, prepare, serve
from exchange.node.archive_file import ArchiveFile
from exchange.node.cards import parse_card_file
from exchange.node.compose import recall_secrets
from exchange.node.config import load_configuration
from exchange.node.errors import SandboxUnavailable
from exchange.node.hardening import harden
from exchange.node.keyring import open_keystore_file
from exchange.node.node_backup import Plan, Verified, age_of, restore_backup
from exchange.node.services import Services
from exchange.store.agencies import all_agencies
from exchange.store.errors import NotFound
from exchange.store.log import consistency_between, frontier_at, latest_head, log_size
from exchange.store.messages import INBOUND, OUTBOUND, keys_of, list_messages
from exchange.store.outbox import backlog
from exchange.store.peers import all_peers
from exchange.store.transaction import Transaction

_MOST_MESSAGES: Final = 10_000
_PATIENCE_S: Final = 60.0
_ADDRESS: Final = "127.0.0.1:7400"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the node that was restored looks like; `problems` is empty where all is well."""

    fingerprint: str
    started_in_s: float
    log_size: int
    peers: int
    agencies: int
    messages_in: int
    messages_out: int
    contents: int
    waiting: int
    held: int
    problems: tuple[str, ...]


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """The report of a rehearsal."""

    origin: str
    made_at: str
    age_hours: float
    log_size: int
    restored_in_s: float
    ok: bool
    found: Found


def rehearse(path: Path, private: SealingPrivateKey, now: datetime, directory: Path | None = None) -> Rehearsed:
    """Restore a backup to a temporary directory, run it without a network, and report.

    Raises:
        SandboxUnavailable: the system lets no process be without a network.
        ArchiveError: the backup cannot be used.
        OSError: there is no room.
    """
    archive = ArchiveFile(path)
    passphrase = Secret(secrets.token_urlsafe(32).encode())
    try:
        with tempfile.TemporaryDirectory(prefix="exchange-rehearsal-", dir=directory) as root:
            began = time.monotonic()
            # The passphrase is random: to guess it costs enough by itself.
            plan = Plan(Path(root) / "node", passphrase, cost=Argon2Parameters(1, 8192), configure=_alone)
            config, verified = asyncio.run(restore_backup(archive, private, plan))
            found = _run_alone(config, passphrase)
            restored_in_s = time.monotonic() - began
    finally:
        archive.close()
        passphrase.wipe()
    age = age_of(archive.about, now) / timedelta(hours=1)
    return Rehearsed(
        origin=verified.about.origin,
        made_at=verified.about.made_at,
        age_hours=round(age, 2),
        log_size=verified.about.log_size,
        restored_in_s=round(restored_in_s, 2),
        ok=not found.problems and _same(verified, found),
        found=found,
    )


def _same(verified: Verified, found: Found) -> bool:
    return found.fingerprint == verified.about.fingerprint and found.log_size >= verified.about.log_size


def _alone(text: str) -> str:
    """The configuration of the copy: who the node is, and nothing else of what the file said."""
    try:
        node = tomllib.loads(text)["node"]
        named = {key: json.dumps(node[key], ensure_ascii=False) for key in ("origin", "area", "name")}
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        raise ArchiveCorrupt("the configuration in the backup cannot be read") from None
    lines = [f"{key} = {value}" for key, value in named.items()]
    return "\n".join(["[node]", *lines, f'url = "http://{_ADDRESS}"', "[listen]", f'address = "{_ADDRESS}"', ""])


def _run_alone(config: Path, passphrase: Secret) -> Found:
    """Run the node in a process that has no network."""
    done = subprocess.run(  # noqa: S603 - this program itself
        [sys.executable, "-m", "exchange.node.rehearsal", str(config)],
        input=passphrase.reveal(),
        stdout=subprocess.PIPE,
        timeout=600,
        check=False,
        close_fds=True,
    )
    if done.returncode != 0:
        try:
            problem = json.loads(done.stdout)
        except ValueError:
            problem = {"code": "", "message": f"the copy ended with {done.returncode}"}
        if problem["code"] == SandboxUnavailable.code:
            raise SandboxUnavailable(problem["message"])
        raise ArchiveCorrupt(f"the node that was restored does not run: {problem['message']}")
    return msgspec.json.decode(done.stdout, type=Found)


async def look(services: Services, url: str, started_in_s: float) -> Found:
    """Look at the node that runs: keys, log, messages, outbox."""
    problems: list[str] = []
    store, keyring = services.store, services.keyring

    async def collect(tx: Transaction) -> dict[str, Any]:
        rows = await backlog(tx)
        return {
            "peers": sum(row.state == "verified" for row in await all_peers(tx)),
            "agencies": len(await all_agencies(tx)),
            "messages_in": len(await list_messages(tx, INBOUND, _MOST_MESSAGES)),
            "messages_out": len(await list_messages(tx, OUTBOUND, _MOST_MESSAGES)),
            "waiting": sum(count for _, state, count in rows if state != "held"),
            "held": sum(count for _, state, count in rows if state == "held"),
        }

    counted = await store.read(collect)
    contents = 0
    for direction in (INBOUND, OUTBOUND):
        for row in await store.read(lambda tx, direction=direction: list_messages(tx, direction, _MOST_MESSAGES)):  # type: ignore[misc]
            try:
                keys = await store.read(lambda tx, row=row: keys_of(tx, row.number))  # type: ignore[misc]
                recall_secrets(keyring.store_key, row.origin, row.message_id, keys)
                contents += 1
            except NotFound:
                continue  # it was erased, or lost before
            except (CryptoError, ValueError):
                problems.append(f"the content of message {row.message_id} does not open")
    for agency in await store.read(all_agencies):
        try:
            open_at_rest(keyring.store_key, context("agency-secret", agency.id.encode()), agency.wrapped_secret)
        except CryptoError:
            problems.append(f"the secret of agency {agency.id} does not open")
    problems += await _look_at_log(services)
    problems += await _look_from_outside(services, url)
    return Found(
        fingerprint=fingerprint(services.configuration.origin, keyring.verifiers),
        started_in_s=round(started_in_s, 2),
        log_size=await store.read(log_size),
        contents=contents,
        problems=tuple(problems),
        **counted,
    )


async def _look_at_log(services: Services) -> list[str]:
    """The latest checkpoint is of the log, and the log continues what it was half-way."""
    origin = services.configuration.origin

    async def check(tx: Transaction) -> None:
        head = await latest_head(tx)
        checkpoint = parse_checkpoint(head.text, origin, services.keyring.verifiers)
        half = max(checkpoint.size // 2, 1)
        path = await consistency_between(tx, half, checkpoint.size)
        verify_consistency(half, checkpoint.size, path, (await frontier_at(tx, half)).root(), checkpoint.root)

    try:
        await services.store.read(check)
    except ExchangeError as error:
        return [f"the log does not hold: {error}"]
    return []


async def _look_from_outside(services: Services, url: str) -> list[str]:
    """What a peer would see: the node's card, on its listener."""
    try:
        async with aiohttp.ClientSession(trust_env=False) as http, http.get(f"{url}/v1/card") as answer:
            shown = parse_card_file(await answer.read())
    except (aiohttp.ClientError, OSError, ExchangeError) as error:
        return [f"the listener does not answer with a card: {type(error).__name__}"]
    if shown.fingerprint != fingerprint(services.configuration.origin, services.keyring.verifiers):
        return ["the card that the listener shows is of another identity"]
    return []


async def run_copy(config: Path, passphrase: Secret) -> Found:
    """Run the node as it would run, but that there is nobody to ask, and look at it."""
    began = time.monotonic()
    configuration = load_configuration(config)
    keyring = open_keystore_file(configuration.keystore_path, passphrase, configuration.origin)
    async with AsyncExitStack() as stack:
        services = await open_services(stack, configuration, keyring)
        await prepare(services, old_store=True)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(serve(services, stop))
            url = f"http://{_ADDRESS}"
            try:
                await _until(lambda: _answers(url), serving)
                return await look(services, url, time.monotonic() - began)
            finally:
                stop.set()


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession(trust_env=False) as http, http.get(f"{url}/v1/health") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def _until(condition: Callable[[], Any], serving: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not serving.done() and not await condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


def main() -> None:
    """In the process of its own: enter the sandbox, run the copy, and print what was found as JSON."""
    from exchange.node.logs import configure_logs
    from exchange.node.sandbox import check_sandbox, enter_sandbox

    try:
        enter_sandbox()
        harden()
        configure_logs("critical")
        passphrase = Secret(sys.stdin.buffer.read())
        found = asyncio.run(run_copy(Path(sys.argv[1]), passphrase))
        check_sandbox()
    except* ExchangeError as group:
        error = _first(group)
        sys.stdout.write(json.dumps({"code": error.code, "message": str(error)}))
        sys.exit(1)
    sys.stdout.buffer.write(msgspec.json.encode(found))


def _first(group: BaseExceptionGroup[ExchangeError]) -> ExchangeError:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group has somebody in it")


if __name__ == "__main__":
    main()
