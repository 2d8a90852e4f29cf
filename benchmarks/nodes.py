"""The nodes that are measured: processes as `exchange run` starts them, on a store of either kind, in one or several
processes behind a balancer.

Where each borough is one process, each has a core: the threads of one process that change cores carry each other's
cache lines about. Where there are more, the kernel places them.
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.balancer import balancer
from benchmarks.databases import Server
from benchmarks.processes import cpu_s, forget_peak, peak_mib, pin
from exchange.cli.boroughs import ENFIELD, HACKNEY, Borough, RunningNode, free_port, register, start_node
from exchange.cli.client import socket_of
from exchange.node.config import load_configuration
from exchange.node.setup import NewNode, make_node

#: More than a node lets through by itself: what is measured is how fast it could be.
_MORE = """
[limits]
peer_messages_per_hour = 10000000
peer_mib_per_hour = 10000000
peer_store_messages = 1000000000
peer_store_gib = 1000000
queue_messages = 10000000
"""


@dataclass(frozen=True)
class Setting:
    """Which store each borough keeps, and in how many processes its node runs."""

    store: Literal["sqlite", "postgresql"] = "sqlite"
    replicas: int = 1

    @property
    def name(self) -> str:
        """For people."""
        kind = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[self.store]
        return kind if self.replicas == 1 else f"{kind}, {self.replicas} replicas"

    @property
    def key(self) -> str:
        """In the names of figures."""
        return self.store if self.replicas == 1 else f"{self.store}-{self.replicas}"


@dataclass(frozen=True)
class Side:
    """A borough that runs, in one process or several."""

    borough: Borough
    processes: list[RunningNode]

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [node.process.pid for node in self.processes]

    @property
    def sockets(self) -> list[str]:
        """Where its local API is asked, one for each process."""
        return [str(socket_of(node.config)) for node in self.processes]

    @property
    def store(self) -> str:
        """The URL of its store."""
        return load_configuration(self.processes[0].config).store_url

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the local API of one of the processes."""
        return self.processes[0].request(method, path, body)

    def counter(self, name: str) -> int:
        """What the processes have counted under a name, all together."""
        found = (node.request("GET", "/v1/health")["counters"] for node in self.processes)
        return sum(int(counters.get(name, 0)) for counters in found)

    def cpu_s(self) -> float:
        """Seconds of CPU that the processes have used."""
        return cpu_s(self.pids)

    def peak_mib(self) -> float:
        """The most memory of any of the processes since `forget_peak`."""
        return peak_mib(self.pids)

    def forget_peak(self) -> None:
        """Count the most memory from now on."""
        forget_peak(self.pids)


def make(root: Path, borough: Borough, server: Server | None = None, url: str | None = None) -> Path:
    """Make the node of a borough under `root`, its store on `server` or in a file; return its configuration."""
    port = free_port()
    config = asyncio.run(
        make_node(
            NewNode(
                directory=root / borough.slug,
                area=borough.area,
                name=borough.name,
                origin=borough.origin,
                listen=f"127.0.0.1:{port}",
                url=url or f"http://127.0.0.1:{port}",
                store=server.database() if server else "sqlite:///exchange.db",
            )
        )
    )
    with config.open("a") as file:
        file.write(_MORE)
    return config


@contextlib.contextmanager
def running(root: Path, borough: Borough, server: Server | None = None, replicas: int = 1) -> Iterator[Side]:
    """Run the node of a borough in so many processes, making it first where there is none."""
    with contextlib.ExitStack() as stack:
        if replicas == 1:
            if not (root / borough.slug).exists():
                make(root, borough, server)
            yield Side(borough, [start_node(stack, root, borough)])
            return
        port = free_port()
        config = make(root, borough, server, f"http://127.0.0.1:{port}")
        own = config.read_text()
        address = next(line for line in own.splitlines() if line.startswith("address = "))
        ports = [int(address.rpartition(":")[2].strip('"'))]
        for number in range(2, replicas + 1):
            copy = root / f"{borough.slug}-{number}" / borough.slug
            shutil.copytree(config.parent, copy, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
            ports.append(free_port())
            text = own.replace(address, f'address = "127.0.0.1:{ports[-1]}"')
            (copy / "exchange.toml").write_text(text)
        roots = [root, *(root / f"{borough.slug}-{number}" for number in range(2, replicas + 1))]
        nodes = [start_node(stack, one, borough) for one in roots]
        stack.enter_context(balancer(port, ports))
        yield Side(borough, nodes)


@contextlib.contextmanager
def two_boroughs(root: Path, setting: Setting, server: Server | None) -> Iterator[tuple[Side, Side]]:
    """Run a sending and a receiving borough that have registered one another."""
    database = server if setting.store == "postgresql" else None
    with (
        running(root, HACKNEY, database, setting.replicas) as hackney,
        running(root, ENFIELD, database, setting.replicas) as enfield,
    ):
        register(hackney.processes[0], enfield.processes[0])
        keep_apart(hackney, enfield)
        yield hackney, enfield


def keep_apart(*sides: Side) -> None:
    """Give each side a core of its own where each is one process, and there are as many cores."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= len(sides) and all(len(side.pids) == 1 for side in sides):
        for side, core in zip(sides, cores, strict=False):
            pin(side.pids[0], [core])


def until(what: str, condition: Callable[[], bool], timeout_s: float = 300.0, every_s: float = 0.02) -> None:
    """Wait until `condition` holds.

    Raises:
        RuntimeError: it does not in that time.
    """
    deadline_s = time.perf_counter() + timeout_s
    while not condition():
        if time.perf_counter() > deadline_s:
            raise RuntimeError(f"after {timeout_s:g} seconds still waiting until {what}")
        time.sleep(every_s)


def has_sent_all(side: Side) -> bool:
    """Whether every delivery is done: the sender deletes one once it has verified the receipt and stored it.

    What is held waits for a person, such as sections for an agency that nobody has registered.
    """
    return not any(lane["state"] == "due" for lane in side.ask("GET", "/v1/health")["lanes"])
