"""Configuration: one struct for each TOML table. Unknown keys are errors; paths are relative to the file."""

import difflib
import ipaddress
import os
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from exchange.crypto.errors import NameInvalid
from exchange.crypto.names import Origin, parse_origin
from exchange.handover.gate import Reason
from exchange.handover.retries import STANDARD_S
from exchange.handover.routing import NO_RULES, Rule, Rules
from exchange.handover.routing_review import mistakes
from exchange.node.errors import ConfigurationInvalid
from exchange.schema.catalogue import default_catalogue
from exchange.schema.reasons import explain
from exchange.schema.wire import AreaText, NameText
from exchange.store.opening import SQLITE

FileText = Annotated[str, Meta(min_length=1, max_length=4096)]


RetryTable = Annotated[tuple[Annotated[float, Meta(gt=0, le=604_800)], ...], Meta(min_length=1, max_length=100)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every table."""


class NodeTable(_Table, frozen=True):
    """Who this node is. `url` is where peers reach it."""

    origin: str
    area: Annotated[AreaText, Meta(description="the ONS code of a local authority, such as E09000012")]
    name: Annotated[NameText, Meta(description="1 to 200 characters, without control characters")]
    url: Annotated[str, Meta(min_length=1, max_length=500)]


class ListenTable(_Table, frozen=True):
    """The public listener for peers: TLS 1.3 from `certificate` and `key`, or plain HTTP on loopback behind a proxy;
    with `mutual` for verified peers alone, and others then register at `open_url`, where `open_address` listens."""

    address: str = "127.0.0.1:7400"
    certificate: str = ""
    key: str = ""
    mutual: bool = False
    open_address: str = ""
    open_url: str = ""


class AgenciesTable(_Table, frozen=True):
    """The listener for agencies that ask the node, with tokens: TLS 1.3 from `certificate` and `key`, or plain HTTP on
    loopback behind a proxy; `url` is where they reach it. Without an `address` there is none."""

    address: str = ""
    certificate: str = ""
    key: str = ""
    url: Annotated[str, Meta(max_length=500)] = ""


class LocalTable(_Table, frozen=True):
    """The local API: a Unix socket, open to the accounts of `group` too where that is set; and TCP on `address` (with
    bearer tokens) where that is set."""

    socket: FileText = "exchange.sock"
    group: str = ""
    address: str = ""


class KeystoreTable(_Table, frozen=True):
    """The keystore file, and the file or systemd credential with its passphrase; with neither, a person is asked."""

    file: FileText = "keystore.json"
    passphrase_file: str = ""
    passphrase_credential: Annotated[
        str, Meta(pattern=r"^([A-Za-z0-9_-][A-Za-z0-9_.:-]{0,99})?\Z", description="the name of a credential")
    ] = ""


class StoreTable(_Table, frozen=True):
    """Where the store is: `sqlite:///FILE`, or `postgresql://...`."""

    url: str = "sqlite:///exchange.db"


class KeysTable(_Table, frozen=True):
    """How long a sealing key is in use, how long it still opens what comes late, and when peers' cards are fetched."""

    sealing_lifetime_days: Annotated[float, Meta(gt=0, le=90)] = 7
    sealing_grace_days: Annotated[float, Meta(gt=0, le=90)] = 14
    card_refresh_hours: Annotated[float, Meta(gt=0, le=168)] = 1


class TrustTable(_Table, frozen=True):
    """Whether a peer counts as verified only once two people have compared its identity; how often nodes tell others
    which checkpoints they have seen; and what the word of a directory is worth: a `hint` to those who verify, or that
    it `suffices` in place of one of them."""

    two_people: bool = False
    compare_logs_hours: Annotated[float, Meta(gt=0, le=168)] = 1
    directory: Literal["hint", "suffices"] = "hint"


class DeliveryTable(_Table, frozen=True):
    """How deliveries are tried."""

    backoff_base_s: Annotated[float, Meta(gt=0, le=60)] = 0.5
    backoff_cap_s: Annotated[float, Meta(gt=0, le=3600)] = 60
    peer_timeout_s: Annotated[float, Meta(gt=0, le=300)] = 30
    agency_timeout_s: Annotated[float, Meta(gt=0, le=300)] = 20
    agency_retry_s: RetryTable = STANDARD_S
    agency_proxy: str = ""
    expires_after_days: Annotated[float, Meta(gt=0, le=90)] = 13


class LimitsTable(_Table, frozen=True):
    """How much others may take of the node: each peer, each address from which somebody calls, and the disk."""

    peer_messages_per_hour: Annotated[int, Meta(ge=1, le=10_000_000)] = 5_000
    peer_mib_per_hour: Annotated[int, Meta(ge=32, le=10_000_000)] = 2_048
    peer_store_messages: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 500_000
    peer_store_gib: Annotated[float, Meta(gt=0, le=1_000_000)] = 20
    address_requests_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] = 600
    address_connections: Annotated[int, Meta(ge=1, le=100_000)] = 64
    trusted_proxies: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    queue_messages: Annotated[int, Meta(ge=1, le=10_000_000)] = 20_000
    local_requests_at_once: Annotated[int, Meta(ge=8, le=100_000)] = 256
    least_free_mib: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 512
    peer_attachment_mib_per_hour: Annotated[int, Meta(ge=64, le=10_000_000)] = 20_480
    peer_attachment_gib: Annotated[float, Meta(gt=0, le=1_000_000)] = 100


class ScanTable(_Table, frozen=True):
    """Who looks for viruses in attachments where their plaintext first exists: a command, which reads the file from its
    standard input, or the socket of a clamd; with neither, nobody does."""

    command: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=4096)], ...], Meta(max_length=64)] = ()
    clamd: Annotated[
        str, Meta(pattern=r"^(unix:/.{1,100})?\Z", description="unix:/PATH of clamd's socket on this machine")
    ] = ""
    timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 120


class GateTable(_Table, frozen=True):
    """What the gate wants before a form leaves: whether a sharing agreement and a legal basis are `required` or only
    `advised`, and for which forms a second person."""

    agreements: Literal["required", "advised"] = "advised"
    second_approver: Annotated[tuple[Reason, ...], Meta(max_length=3)] = ()


class HandoverTable(_Table, frozen=True):
    """The file of the deadlines that handovers have, without which it is those that are shipped; and after how long it
    is an alarm that an agency has not confirmed a recall or an erasure."""

    deadlines: str = ""
    confirm_within_days: Annotated[float, Meta(gt=0, le=365)] = 3.0


class FileTables(_Table, frozen=True):
    """The whole file."""

    node: NodeTable
    listen: ListenTable = ListenTable()
    agencies: AgenciesTable = AgenciesTable()
    local: LocalTable = LocalTable()
    keystore: KeystoreTable = KeystoreTable()
    store: StoreTable = StoreTable()
    keys: KeysTable = KeysTable()
    trust: TrustTable = TrustTable()
    delivery: DeliveryTable = DeliveryTable()
    limits: LimitsTable = LimitsTable()
    gate: GateTable = GateTable()
    routing: Rules = NO_RULES
    handover: HandoverTable = HandoverTable()
    scan: ScanTable = ScanTable()


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration file, checked, with its directory."""

    path: Path
    tables: FileTables
    origin: Origin
    #: Where systemd puts the credentials of the service, if it gave it any.
    credentials: Path | None = None

    def resolve(self, name: str) -> Path:
        """A path of the file, relative to the file's directory."""
        return (self.path.parent / name).absolute()

    @property
    def directory(self) -> Path:
        """Where the configuration is, and what the node keeps beside it."""
        return self.path.parent.absolute()

    @property
    def keystore_path(self) -> Path:
        """The keystore file."""
        return self.resolve(self.tables.keystore.file)

    @property
    def passphrase_path(self) -> Path | None:
        """The file that holds the keystore's passphrase, if one does."""
        name = self.tables.keystore.passphrase_file
        return self.resolve(name).resolve() if name else None

    @property
    def store_url(self) -> str:
        """Where the store is; the path of a SQLite file is absolute."""
        return self.resolve_store(self.tables.store.url)

    def resolve_store(self, url: str) -> str:
        """The URL of a store, with an absolute path where it is a SQLite file."""
        return f"{SQLITE}{self.resolve(url.removeprefix(SQLITE))}" if url.startswith(SQLITE) else url

    @property
    def store_file(self) -> Path | None:
        """The SQLite file, if the store is one."""
        url = self.tables.store.url
        return self.resolve(url.removeprefix(SQLITE)) if url.startswith(SQLITE) else None

    @property
    def lock_path(self) -> Path:
        """The file that is locked while a process runs on this directory."""
        return (self.store_file or self.resolve("exchange.db")).with_suffix(".lock")

    @property
    def registration_url(self) -> str:
        """Where those who are not registered yet reach this node."""
        return (self.tables.listen.open_url or self.tables.node.url).rstrip("/")

    @property
    def socket_path(self) -> Path:
        """The local API's Unix socket."""
        return self.resolve(self.tables.local.socket)

    @property
    def card_path(self) -> Path:
        """Where the node keeps a copy of its latest card, for a peer's admin."""
        return self.path.parent.absolute() / "card.json"

    @property
    def revocation_path(self) -> Path:
        """Where the node keeps the revocation of its identity, once that is published."""
        return self.path.parent.absolute() / "revoked.json"


def load_configuration(path: Path) -> Configuration:
    """Read and check a configuration file.

    Raises:
        ConfigurationInvalid: it cannot be read, or says something that cannot be.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise ConfigurationInvalid(
            f"there is no configuration {path}"
            if missing
            else f"cannot read the configuration {path}: {error.strerror}",
            hint="Give --config FILE, or set EXCHANGE_CONFIG. `exchange init` makes a new node.",
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationInvalid(f"{path}: this is not UTF-8 text") from None
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    return replace(parse_configuration(path, text), credentials=Path(credentials) if credentials else None)


def parse_configuration(path: Path, text: str) -> Configuration:
    """Check the text of a configuration file that is, or will be, at `path`.

    Raises:
        ConfigurationInvalid: it says something that cannot be.
    """
    try:
        tables = msgspec.convert(tomllib.loads(text), FileTables)
        origin = parse_origin(tables.node.origin)
        _check(tables)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationInvalid(f"{path}: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigurationInvalid(f"{path}: {_misfit(error)}") from None
    except NameInvalid as error:
        raise ConfigurationInvalid(f"{path}: node.origin: {error}", hint=NameInvalid.hint) from None
    except ConfigurationInvalid as error:
        raise ConfigurationInvalid(f"{path}: {error}") from None
    except (ValueError, RecursionError):
        # tomllib lets through what `int` says of too many digits, and does not count how deep it is.
        raise ConfigurationInvalid(f"{path}: a number is too long, or a value too deep") from None
    return Configuration(path.absolute(), tables, origin)


def check_store_url(url: str) -> None:
    """Check that a store can be at that URL.

    Raises:
        ConfigurationInvalid: it is of no kind that is known, or holds a password.
    """
    if re.fullmatch(r"sqlite:///.+", url):
        return
    if not re.fullmatch(r"postgres(ql)?://.+", url):
        raise ConfigurationInvalid("store.url: must be sqlite:///FILE or postgresql://HOST/DATABASE")
    if re.match(r"[a-z]+://[^/@]*:[^/@]+@", url) or re.search(r"[?&]password=", url):
        raise ConfigurationInvalid(
            "store.url: must not hold a password", hint="Put it into a file in pgpass format, and add ?passfile=FILE."
        )


def _check(tables: FileTables) -> None:
    """Check what no field can see by itself."""
    listen, local = tables.listen, tables.local
    if not is_node_url(tables.node.url):
        raise ConfigurationInvalid("node.url: must be https://HOST (or http:// on loopback), without user or query")
    check_store_url(tables.store.url)
    _check_listener("listen", listen)
    if tables.agencies.address:
        _check_listener("agencies", tables.agencies)
    if tables.agencies.url and not is_node_url(tables.agencies.url):
        raise ConfigurationInvalid("agencies.url: must be https://HOST (or http:// on loopback), without user or query")
    if tables.keystore.passphrase_file and tables.keystore.passphrase_credential:
        raise ConfigurationInvalid("keystore: set passphrase_file or passphrase_credential, not both")
    if tables.scan.command and tables.scan.clamd:
        raise ConfigurationInvalid("scan: set command or clamd, not both")
    _check_mutual(tables)
    for mistake in mistakes(tables.routing, default_catalogue()):
        raise ConfigurationInvalid(f"routing.{mistake.path}: {mistake.message}")
    if tables.delivery.agency_proxy and not is_proxy_url(tables.delivery.agency_proxy):
        raise ConfigurationInvalid("delivery.agency_proxy: must be http://ADDRESS:PORT, without a name")
    try:
        for text in tables.limits.trusted_proxies:
            ipaddress.ip_network(text)
    except ValueError:
        raise ConfigurationInvalid("limits.trusted_proxies: are networks such as 10.1.0.0/16") from None
    if local.address and not is_loopback(split_address(local.address, "local.address")[0]):
        raise ConfigurationInvalid("local.address: must be on loopback; put a TLS proxy in front of it")


def _check_listener(name: str, table: ListenTable | AgenciesTable) -> None:
    if bool(table.certificate) != bool(table.key):
        raise ConfigurationInvalid(f"{name}: certificate and key belong together")
    host, _ = split_address(table.address, f"{name}.address")
    if not table.certificate and not is_loopback(host):
        raise ConfigurationInvalid(f"{name}.address: without a certificate, only loopback is allowed")


def is_proxy_url(text: str) -> bool:
    """Whether a proxy can be at that URL: http://ADDRESS:PORT. By a name, whoever answers for the DNS could move it."""
    match = re.fullmatch(r"http://([^/@?#]+)/?", text)
    try:
        host, port = split_address(match[1]) if match else ("", 0)
        return port > 0 and bool(ipaddress.ip_address(host))
    except (ConfigurationInvalid, ValueError):
        return False


def _check_mutual(tables: FileTables) -> None:
    listen = tables.listen
    if listen.mutual and not (listen.certificate and tables.node.url.startswith("https://")):
        raise ConfigurationInvalid("listen.mutual: needs listen.certificate and listen.key, and an https:// node.url")
    if bool(listen.open_address) != bool(listen.open_url):
        raise ConfigurationInvalid("listen: open_address and open_url belong together")
    if not listen.open_address:
        return
    if not listen.mutual:
        raise ConfigurationInvalid("listen.open_address: is for nodes with listen.mutual; others are open already")
    split_address(listen.open_address, "listen.open_address")
    if not (is_node_url(listen.open_url) and listen.open_url.startswith("https://")):
        raise ConfigurationInvalid("listen.open_url: must be https://HOST, without user or query")


def is_node_url(text: str) -> bool:
    """Whether a node can be at that URL: https, or http on loopback, without user, query or fragment."""
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError:
        return False
    plain = re.fullmatch(r"https?://[!-~]+", text) is not None and not re.search(r"[@?#]", text)
    return plain and _is_host(host) and (url.scheme == "https" or is_loopback(host))


def _is_host(host: str) -> bool:
    """Whether a name can be looked up: labels of 1 to 63 characters, 253 in all (RFC 1035, section 2.3.4)."""
    return len(host) <= 253 and all(1 <= len(label) <= 63 for label in host.split("."))


def split_address(address: str, key: str = "the address") -> tuple[str, int]:
    """Split `host:port`; IPv6 hosts stand in brackets.

    Raises:
        ConfigurationInvalid: it is neither.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):([0-9]{1,5})", address)
    if match is None or int(match[2]) > 65535:
        raise ConfigurationInvalid(f"{key}: {address!r} is not host:port")
    return match[1].strip("[]"), int(match[2])


def is_loopback(host: str) -> bool:
    """Whether a host is certainly this machine itself."""
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None


def _misfit(error: msgspec.ValidationError) -> str:
    key, reason = explain(error, FileTables)
    unknown = re.match(r"Object contains unknown field `([^`]+)`", reason)
    if unknown is None:
        return f"{key}: {reason}"
    names = [field.name for table in _table_types() for field in msgspec.structs.fields(table)]
    near = difflib.get_close_matches(unknown[1], names, 1)
    name = f"{key}.{unknown[1]}".lstrip(".")
    return f"{name}: there is no such key" + (f"; did you mean {near[0]!r}?" if near else "")


def _table_types() -> list[Any]:
    return [FileTables, Rule, *(field.type for field in msgspec.structs.fields(FileTables))]
