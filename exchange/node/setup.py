"""Make a new node's directory: configuration, keystore, store and first card."""

import json
import os
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from exchange.crypto.names import parse_origin
from exchange.node.app import open_services, prepare, read_passphrase, unlock
from exchange.node.config import load_configuration
from exchange.node.errors import ConfigurationInvalid
from exchange.node.keyring import new_keystore
from exchange.node.revocation import prepare_revocation

_TEMPLATE = """\
# The configuration of one borough's node. Paths are relative to this file.

[node]
origin = {origin}   # the node's lasting name; it never changes
area = {area}   # the ONS/GSS code of the local authority
name = {name}
url = {url}   # where peers reach the listener below

[listen]
address = {listen}
# certificate = "tls.crt"   # TLS 1.3; without it the address must be on loopback, behind a proxy
# key = "tls.key"

[local]
socket = "exchange.sock"
# address = "127.0.0.1:7480"   # the local API on TCP too, with bearer tokens

[keystore]
file = "keystore.json"
passphrase_file = {passphrase_file}

[store]
url = "sqlite:///exchange.db"
"""


@dataclass(frozen=True, slots=True)
class NewNode:
    """What the admin says of a new node."""

    directory: Path
    area: str
    name: str
    url: str
    origin: str | None = None
    listen: str = "127.0.0.1:7400"
    passphrase_file: Path | None = None


async def make_node(new: NewNode) -> Path:
    """Make the directory of a new node, with a revocation of its keys; returns the path of its configuration.

    Raises:
        ConfigurationInvalid: the directory has a node already, or what was said cannot be.
    """
    directory = new.directory
    path = directory / "exchange.toml"
    if path.exists():
        raise ConfigurationInvalid(f"there is a node in {directory} already; nothing was changed")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if new.passphrase_file is None:
        passphrase_path = directory / "passphrase"
        _write(passphrase_path, secrets.token_urlsafe(32).encode() + b"\n")
        passphrase_name = passphrase_path.name
    else:
        passphrase_path = new.passphrase_file.absolute()
        inside = passphrase_path.parent == directory.absolute()
        passphrase_name = passphrase_path.name if inside else str(passphrase_path)
    passphrase = read_passphrase(passphrase_path)
    origin = parse_origin(new.origin or urlsplit(new.url).hostname or "")
    values = {
        "origin": origin,
        "area": new.area,
        "name": new.name,
        "url": new.url.rstrip("/"),
        "listen": new.listen,
        "passphrase_file": passphrase_name,
    }
    text = _TEMPLATE.format(**{key: json.dumps(value, ensure_ascii=False) for key, value in values.items()})
    draft = directory / "exchange.toml.new"
    _write(draft, text.encode())
    try:
        load_configuration(draft)
        keystore = directory / "keystore.json"
        if keystore.exists():
            raise ConfigurationInvalid(f"there is a keystore in {directory} already; nothing was changed")
        _write(keystore, new_keystore(passphrase))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    configuration = load_configuration(path)
    async with AsyncExitStack() as stack:
        services = await open_services(stack, configuration, unlock(configuration))
        await prepare(services)
        _write(directory / "revocation.json", await prepare_revocation(services))
    return path


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
