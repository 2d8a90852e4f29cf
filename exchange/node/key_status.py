"""How the node's keys stand, and what an admin should see to: from the files, and more of it from the running node."""

import os
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from exchange.crypto.keystore import cost_of
from exchange.crypto.signing import fingerprint
from exchange.errors import ExchangeError
from exchange.node.cards import parse_card_file
from exchange.node.config import Configuration
from exchange.node.errors import ConfigurationInvalid
from exchange.node.hardening import Protection
from exchange.node.key_records import BackupRecord, NodeBackupRecord, RevocationRecord, last_record
from exchange.node.services import Services, moment
from exchange.store.log import first_signed_at_ms, log_size
from exchange.store.trust import rotations_of

#: Backups are made daily: who has none of the last two days should know.
_OLD: Final = timedelta(days=2)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The base of what the state consists of."""


class Epoch(Part, frozen=True):
    """A sealing key: peers seal to it until `not_after`, and it is destroyed after `opens_until`."""

    not_before: datetime
    not_after: datetime
    opens_until: datetime


class SigningState(Part, frozen=True):
    """The signing keys; a node that does not run does not know since when they are in force."""

    fingerprint: str
    since: datetime | None = None
    rotating: bool | None = None


class KeystoreState(Part, frozen=True):
    """The keystore file; `current` where a guess at its passphrase costs no less than with a new one."""

    file: str
    opslimit: int
    memlimit_bytes: int
    current: bool


class PassphraseState(Part, frozen=True):
    """Where the passphrase comes from: `file`, `credential` or `prompt`, and where in particular."""

    source: str
    place: str
    beside_keystore: bool


class BackupState(Part, frozen=True):
    """The last backup; `current` where it holds the signing keys in force."""

    at: datetime
    by: str
    threshold: int | None
    count: int | None
    current: bool


class NodeBackupState(Part, frozen=True):
    """The last backup of the whole node: when, for whom, and whether it holds the signing keys in force."""

    at: datetime
    key_id: str
    log_size: int
    current: bool


class RevocationState(Part, frozen=True):
    """The last revocation that was prepared; one of earlier keys works too."""

    prepared_at: datetime
    current: bool


class Advice(Part, frozen=True):
    """What an admin should see to."""

    code: str
    message: str


class KeyState(Part, frozen=True):
    """How the keys stand."""

    origin: str
    running: bool
    signing: SigningState | None
    sealing: tuple[Epoch, ...]
    log_size: int | None
    keystore: KeystoreState
    passphrase: PassphraseState
    open_to_others: tuple[str, ...]
    backup: BackupState | None
    node_backup: NodeBackupState | None
    revocation: RevocationState | None
    protection: Protection | None
    advice: tuple[Advice, ...] = ()


def stopped_state(configuration: Configuration, now: datetime) -> KeyState:
    """What the files of a node tell, without its passphrase and whether or not it runs.

    Raises:
        ConfigurationInvalid: the keystore cannot be read.
        KeystoreCorrupt: it is none.
    """
    signing, sealing = _from_card(configuration)
    return _advised(_state(configuration, signing, sealing), now)


async def running_state(services: Services) -> KeyState:
    """What the running node knows.

    Raises:
        ConfigurationInvalid: the keystore cannot be read.
        KeystoreCorrupt: it is none.
    """
    keyring, origin = services.keyring, services.configuration.origin
    rotations = await services.store.read(lambda tx: rotations_of(tx, origin))
    since_ms = rotations[-1].at_ms if rotations else await services.store.read(first_signed_at_ms)
    signing = SigningState(
        fingerprint=fingerprint(origin, keyring.verifiers),
        since=None if since_ms is None else moment(since_ms),
        rotating=keyring.following is not None,
    )
    sealing = tuple(
        Epoch(
            not_before=moment(row.not_before_ms),
            not_after=moment(row.not_after_ms),
            opens_until=moment(row.opens_until_ms),
        )
        for row in keyring.epochs
    )
    state = _state(services.configuration, signing, sealing)
    state = msgspec.structs.replace(
        state, running=True, log_size=await services.store.read(log_size), protection=services.protection
    )
    return _advised(state, services.now())


def describe_node_backup(services: Services) -> dict[str, object] | None:
    """When the whole node was last backed up, and how long ago that is."""
    record = last_record(services.configuration.directory, NodeBackupRecord)
    if record is None:
        return None
    return {"at": record.at, "age_hours": round((services.now() - record.at) / timedelta(hours=1), 1)}


def _from_card(configuration: Configuration) -> tuple[SigningState | None, tuple[Epoch, ...]]:
    """What the copy of the latest card says."""
    try:
        verified = parse_card_file(configuration.card_path.read_bytes())
    except (OSError, ExchangeError):
        return None, ()
    keys = verified.card.sealing_keys
    return SigningState(fingerprint=verified.fingerprint), tuple(
        Epoch(not_before=key.not_before, not_after=key.not_after, opens_until=key.opens_until) for key in keys
    )


def _state(configuration: Configuration, signing: SigningState | None, sealing: tuple[Epoch, ...]) -> KeyState:
    path = configuration.keystore_path
    try:
        cost = cost_of(path.read_bytes())
    except OSError as error:
        raise ConfigurationInvalid(
            f"cannot read the keystore {path}: {error.strerror}",
            hint="Correct keystore.file, or restore the keystore from its backup.",
        ) from None
    identity = signing.fingerprint if signing else ""
    backup = last_record(configuration.directory, BackupRecord)
    whole = last_record(configuration.directory, NodeBackupRecord)
    revocation = last_record(configuration.directory, RevocationRecord)
    files = [path, *([configuration.passphrase_path] if configuration.passphrase_path else [])]
    return KeyState(
        origin=configuration.origin,
        running=False,
        signing=signing,
        sealing=sealing,
        log_size=None,
        keystore=KeystoreState(
            file=str(path), opslimit=cost.opslimit, memlimit_bytes=cost.memlimit_bytes, current=cost.is_current
        ),
        passphrase=_passphrase(configuration),
        open_to_others=tuple(str(file) for file in files if _is_open_to_others(file)),
        backup=None
        if backup is None
        else BackupState(
            at=backup.at,
            by=backup.by,
            threshold=backup.threshold,
            count=backup.count,
            current=identity in ("", backup.fingerprint),
        ),
        node_backup=None
        if whole is None
        else NodeBackupState(
            at=whole.at,
            key_id=whole.key_id,
            log_size=whole.log_size,
            current=identity in ("", whole.fingerprint),
        ),
        revocation=None
        if revocation is None
        else RevocationState(prepared_at=revocation.at, current=identity in ("", revocation.fingerprint)),
        protection=None,
    )


def _passphrase(configuration: Configuration) -> PassphraseState:
    path, credential = configuration.passphrase_path, configuration.tables.keystore.passphrase_credential
    if path is not None:
        beside = path.parent == configuration.keystore_path.resolve().parent
        return PassphraseState(source="file", place=str(path), beside_keystore=beside)
    source = "credential" if credential else "prompt"
    return PassphraseState(source=source, place=credential, beside_keystore=False)


def _is_open_to_others(path: Path) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & (stat.S_IRWXG | stat.S_IRWXO))


def _advised(state: KeyState, now: datetime) -> KeyState:
    return msgspec.structs.replace(state, advice=advise(state, now))


def _about_node_backup(backup: NodeBackupState | None, now: datetime) -> list[tuple[str, str]]:
    if backup is None:
        return [("no-node-backup", "The node was never backed up. Run: exchange backup create FILE --to KEY.pub")]
    if not backup.current:
        message = "The last backup of the node holds earlier signing keys. Make another: exchange backup create"
        return [("node-backup-outdated", message)]
    if now - backup.at > _OLD:
        days = (now - backup.at).days
        return [("node-backup-old", f"The last backup of the node is {days} days old. See that its timer runs.")]
    return []


def advise(state: KeyState, now: datetime) -> tuple[Advice, ...]:
    """What an admin should see to, the most pressing first. Pure."""
    found: list[tuple[str, str]] = []
    if state.signing is not None and state.signing.rotating:
        found.append(("rotating", "A change of the signing keys is not finished. Restart the node: it finishes it."))
    if not any(epoch.not_before <= now < epoch.not_after for epoch in state.sealing):
        what = "Look at its log." if state.running else "Start it."
        found.append(("no-sealing-key", f"No sealing key is in force: peers cannot send to this node. {what}"))
    found += [("open", f"Others may read {path}. Run: chmod 600 {path}") for path in state.open_to_others]
    if state.backup is None:
        found.append(("no-backup", "The keys were never backed up. Run: exchange keys backup FILE"))
    elif not state.backup.current:
        found.append(
            ("backup-outdated", "The last backup holds earlier signing keys. Make another: exchange keys backup FILE")
        )
    found += _about_node_backup(state.node_backup, now)
    if state.revocation is None:
        found.append(
            ("no-revocation", "No revocation was prepared. Run: exchange keys revocation, and keep the file offline.")
        )
    if not state.keystore.current:
        found.append(
            ("cost-low", "A guess at the passphrase costs less than it should today. Run: exchange keys passwd --same")
        )
    if state.passphrase.beside_keystore:
        found.append(
            ("passphrase-beside", "The passphrase lies beside the keystore: a thief has both. See docs/keys.md.")
        )
    if state.protection is not None and state.protection.reason:
        found.append(("unprotected", f"{state.protection.reason}. See docs/keys.md."))
    return tuple(Advice(code=code, message=message) for code, message in found)
