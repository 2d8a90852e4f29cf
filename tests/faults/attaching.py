"""A form with a file attached, sent as the command line does it: what was not answered is sent again."""

import base64
import contextlib
import functools
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Final

from exchange.cli.client import CommandFailed, Node
from tests.faults.world import Broken, World
from tests.processes.harness import ENFIELD, until

_FILE: Final = os.urandom(3_000_000)
_SECTION: Final = "referral"


def send_attached(world: World) -> None:
    """Upload a file and send a form with it; where the node dies on the way, a person begins anew."""
    message_id = str(uuid.uuid4())
    with contextlib.suppress(CommandFailed):
        _upload(world, message_id)
        world.sender.send(world.form(), message_id)


def _upload(world: World, message_id: str) -> None:
    names = json.dumps({"title": "Fictitious", "file_name": "file.bin"}).encode()
    header = {"exchange-attachment": base64.urlsafe_b64encode(names).decode()}
    path = f"/v1/messages/{message_id}/attachments/{_SECTION}/1?to={ENFIELD}"
    Node(world.hackney.config).upload(path, io.BytesIO(_FILE), len(_FILE), header, lambda _: None, wait_s=30)


def check_attached(world: World) -> None:
    """A file that is sent now, and each that was sent before, is there whole."""
    send_attached(world)
    for row in world.hackney.api("GET", "/v1/outbox")["items"]:
        if world.hackney.status(row["id"])["attachments"]:
            until(f"the attachment of {row['id']} is ready", functools.partial(_is_ready, world, row["id"]))
            with io.BytesIO() as out:
                path = f"/v1/messages/{row['id']}/attachments/{_SECTION}/1"
                Node(world.enfield.config).download(path, out, _silent, wait_s=30)
                if out.getvalue() != _FILE:
                    raise Broken(f"the attachment of {row['id']} is another file")


def _is_ready(world: World, message_id: str) -> bool:
    return [one["state"] for one in world.hackney.status(message_id)["attachments"]] == ["ready"]


@contextlib.contextmanager
def _silent(_: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None
