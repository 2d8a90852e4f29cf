"""Configuration: one struct for each TOML table. Unknown keys are errors; paths are relative to the file."""

import difflib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from exchange.crypto.errors import NameInvalid
from exchange.crypto.names import Origin, parse_origin
from exchange.node.errors import ConfigurationInvalid
from exchange.schema.wire import AreaText, NameText


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every table."""


class NodeTable(_Table, frozen=True):
    """Who this node is. `url` is where peers reach it."""

    origin: str
    area: AreaText
    name: NameText
    url: str


class ListenTable(_Table, frozen=True):
    """The public listener for peers: TLS 1.3 from `certificate` and `key`, or plain HTTP on loopback behind a proxy."""

    address: str = "127.0.0.1:7400"
    certificate: str = ""
    key: str = ""


class LocalTable(_Table, frozen=True):
    """The local API: a Unix socket, and TCP on `address` (with bearer tokens) where that is set."""

    socket: str = "exchange.sock"
    address: str = ""


class KeystoreTable(_Table, frozen=True):
    """The keystore file, and the file that holds its passphrase."""

    file: str = "keystore.json"
    passphrase_file: str = ""


class StoreTable(_Table, frozen=True):
    """Where the store is: `sqlite:///FILE`."""

    url: str = "sqlite:///exchange.db"


class KeysTable(_Table, frozen=True):
    """How long a sealing key is in use, and how long after that it still opens what comes late."""

    sealing_lifetime_days: Annotated[float, Meta(gt=0, le=90)] = 7
    sealing_grace_days: Annotated[float, Meta(gt=0, le=90)] = 14


class DeliveryTable(_Table, frozen=True):
    """How deliveries are tried."""

    backoff_base_s: Annotated[float, Meta(gt=0, le=60)] = 0.5
    backoff_cap_s: Annotated[float, Meta(gt=0, le=3600)] = 60
    peer_timeout_s: Annotated[float, Meta(gt=0, le=300)] = 30
    agency_timeout_s: Annotated[float, Meta(gt=0, le=300)] = 20
    expires_after_days: Annotated[float, Meta(gt=0, le=90)] = 13


class FileTables(_Table, frozen=True):
    """The whole file."""

    node: NodeTable
    listen: ListenTable = ListenTable()
    local: LocalTable = LocalTable()
    keystore: KeystoreTable = KeystoreTable()
    store: StoreTable = StoreTable()
    keys: KeysTable = KeysTable()
    delivery: DeliveryTable = DeliveryTable()


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration file, checked, with its directory."""

    path: Path
    tables: FileTables
    origin: Origin

    def resolve(self, name: str) -> Path:
        """A path of the file, relative to the file's directory."""
        return (self.path.parent / name).absolute()

    @property
    def store_path(self) -> Path:
        """The SQLite file."""
        return self.resolve(self.tables.store.url.removeprefix("sqlite:///"))

    @property
    def socket_path(self) -> Path:
        """The local API's Unix socket."""
        return self.resolve(self.tables.local.socket)

    @property
    def card_path(self) -> Path:
        """Where the node keeps a copy of its latest card, for a peer's admin."""
        return self.path.parent.absolute() / "card.json"


def load_configuration(path: Path) -> Configuration:
    """Read and check a configuration file.

    Raises:
        ConfigurationInvalid: it cannot be read, or says something that cannot be.
    """
    try:
        data = tomllib.loads(path.read_text())
        tables = msgspec.convert(data, FileTables)
        origin = parse_origin(tables.node.origin)
    except OSError as error:
        raise ConfigurationInvalid(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(f"{path}: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigurationInvalid(f"{path}: {error}{_near(str(error))}") from None
    except NameInvalid as error:
        raise ConfigurationInvalid(f"{path}: node.origin: {error}") from None
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", tables.node.url):
        raise ConfigurationInvalid(f"{path}: node.url: must begin with https:// (or http:// on loopback)")
    if not tables.store.url.startswith("sqlite:///"):
        raise ConfigurationInvalid(f"{path}: store.url: must be sqlite:///FILE")
    if bool(tables.listen.certificate) != bool(tables.listen.key):
        raise ConfigurationInvalid(f"{path}: listen: certificate and key belong together")
    host, _ = split_address(tables.listen.address, path)
    if not tables.listen.certificate and not is_loopback(host):
        raise ConfigurationInvalid(f"{path}: listen.address: without a certificate, only loopback is allowed")
    return Configuration(path.absolute(), tables, origin)


def split_address(address: str, path: Path | None = None) -> tuple[str, int]:
    """Split `host:port`; IPv6 hosts stand in brackets.

    Raises:
        ConfigurationInvalid: it is neither.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):([0-9]{1,5})", address)
    if match is None or int(match[2]) > 65535:
        raise ConfigurationInvalid(f"{path or 'address'}: {address!r} is not host:port")
    return match[1].strip("[]"), int(match[2])


def is_loopback(host: str) -> bool:
    """Whether a host is certainly this machine itself."""
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None


def _near(message: str) -> str:
    found = re.search(r"unknown field `([^`]+)`", message)
    names = [field.name for table in _tables() for field in msgspec.structs.fields(table)]
    near = difflib.get_close_matches(found[1], names, 1) if found else []
    return f"; did you mean {near[0]!r}?" if near else ""


def _tables() -> list[Any]:
    return [FileTables, *(field.type for field in msgspec.structs.fields(FileTables))]
