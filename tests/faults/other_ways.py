"""An agency that fetches, or takes files from a folder, in place of webhooks: what it took counts as a call."""

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.agency.errors import NotNow
from exchange.agency.fetching import Node
from tests.faults.world import World
from tests.processes.harness import Borough, until
from tests.processes.ports import free_port
from tests.processes.receiver import Request

KIND: Final = "housing"
_PAUSE_S: Final = 0.02


def reach_otherwise(world: World, borough: Borough, way: str) -> None:
    """Have an agency of a borough reached by `pull` or `drop`, and take what comes until the end of the world."""
    url = f"http://127.0.0.1:{free_port()}"
    borough.configure("agencies", address=url.removeprefix("http://"), url=url)
    folder = world.root / "folder"
    folder.mkdir(mode=0o700)
    world.start(borough)
    found = borough.api("GET", "/v1/agencies")["items"]
    borough.api("DELETE", f"/v1/agencies/{next(row['id'] for row in found if row['kind'] == KIND)}")
    wanted: dict[str, Any] = {"pull": True} if way == "pull" else {"folder": {"directory": str(folder)}}
    added = borough.api("POST", "/v1/agencies", {"kind": KIND, **wanted})
    until("the peer has the card", borough.is_idle)
    borough.stop()
    take = _fetching(Node(url, added["token"] or ""), world) if way == "pull" else _emptying(folder, world)
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(_PAUSE_S):
            take()

    thread = threading.Thread(target=go_on)
    thread.start()
    world.afterwards(thread.join)
    world.afterwards(stop.set)


def _fetching(node: Node, world: World) -> Callable[[], None]:
    def take() -> None:
        with contextlib.suppress(NotNow):
            for item in node.fetch("", 1).items:
                body = bytes(item)
                event_id = msgspec.json.decode(body)["id"]
                world.receiver.requests.append(Request(KIND, {"webhook-id": event_id}, body, 204))
                node.says(event_id, "delivered")

    return take


def _emptying(folder: Path, world: World) -> Callable[[], None]:
    def take() -> None:
        for path in folder.glob("evt_*.json"):
            body, at_s = path.read_bytes(), path.stat().st_mtime
            headers = {"webhook-id": str(json.loads(body)["id"])}
            world.receiver.requests.append(Request(KIND, headers, body, 204, at_s))
            path.unlink()

    return take
