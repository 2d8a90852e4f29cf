"""Make a new node's directory: configuration, keystore, store and first card."""

import json
import os
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from exchange.crypto.errors import NameInvalid
from exchange.crypto.names import parse_origin
from exchange.crypto.secret import Secret
from exchange.node.app import open_services, prepare, unlock
from exchange.node.config import load_configuration, parse_configuration
from exchange.node.errors import ConfigurationInvalid
from exchange.node.keyring import new_keystore
from exchange.node.passphrase import check_new, read_passphrase
from exchange.node.revocation import prepare_revocation
from exchange.store.opening import SQLITE, store_exists

_PASSPHRASE_FILE: Final = "passphrase"  # noqa: S105 - the name of a file
_KEYSTORE: Final = "keystore.json"
_STORE: Final = "exchange.db"
_REVOCATION: Final = "revocation.json"
_TEMPLATE: Final = """\
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
url = {store}
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
    store: str = f"{SQLITE}exchange.db"


async def make_node(new: NewNode) -> Path:
    """Make the directory of a new node, with a revocation of its keys; returns the path of its configuration.

    Raises:
        ConfigurationInvalid: the directory has a node already, or what was said cannot be.
    """
    directory = new.directory
    path = directory / "exchange.toml"
    _refuse_what_is_there(directory, own_passphrase=new.passphrase_file is None)
    if new.passphrase_file is None:
        passphrase_name, passphrase = _PASSPHRASE_FILE, Secret(secrets.token_urlsafe(32).encode())
    else:
        passphrase_path = new.passphrase_file.absolute()
        inside = passphrase_path.parent == directory.absolute()
        passphrase_name = passphrase_path.name if inside else str(passphrase_path)
        passphrase = check_new(read_passphrase(passphrase_path))
    text = _text(new, passphrase_name)
    try:
        parse_configuration(path, text)
    except ConfigurationInvalid as error:
        what = str(error).removeprefix(f"{path}: ")
        raise ConfigurationInvalid(
            f"{what}; nothing was made", hint="`exchange init --help` shows what each option takes."
        ) from None
    if not new.store.startswith(SQLITE) and await store_exists(new.store):
        raise ConfigurationInvalid(
            "the PostgreSQL database holds a node already; nothing was changed",
            hint="Choose another database, or a schema of its own, for a new node.",
        )
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if new.passphrase_file is None:
            _write(directory / _PASSPHRASE_FILE, passphrase.reveal() + b"\n")
        _write(directory / _KEYSTORE, new_keystore(passphrase))
        _write(path, text.encode())
    except OSError as error:
        raise ConfigurationInvalid(
            f"cannot make a node in {directory}: {error.strerror}", hint="Choose a directory that you may write to."
        ) from None
    configuration = load_configuration(path)
    async with AsyncExitStack() as stack:
        services = await open_services(stack, configuration, unlock(configuration))
        await prepare(services)
        _write(directory / _REVOCATION, await prepare_revocation(services))
    return path


def _refuse_what_is_there(directory: Path, *, own_passphrase: bool) -> None:
    """Overwrite nothing: a passphrase that is replaced takes the keys of its keystore with it."""
    names = ["exchange.toml", _KEYSTORE, _STORE, _REVOCATION, *([_PASSPHRASE_FILE] if own_passphrase else [])]
    there = [name for name in names if os.path.lexists(directory / name)]
    if there:
        raise ConfigurationInvalid(
            f"{directory} holds {' and '.join(there)} already; nothing was changed",
            hint="Choose another directory for a new node.",
        )


def _text(new: NewNode, passphrase_name: str) -> str:
    try:
        origin = parse_origin(new.origin or urlsplit(new.url).hostname or "")
    except (NameInvalid, ValueError):
        raise ConfigurationInvalid(
            "the node needs a lasting name, and neither --origin nor --url gives one; nothing was made",
            hint=f"{NameInvalid.hint} A URL is such as https://exchange.hackney.example.",
        ) from None
    values = {
        "origin": origin,
        "area": new.area,
        "name": new.name,
        "url": new.url.rstrip("/"),
        "listen": new.listen,
        "passphrase_file": passphrase_name,
        "store": new.store,
    }
    return _TEMPLATE.format(**{key: json.dumps(value, ensure_ascii=False) for key, value in values.items()})


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
