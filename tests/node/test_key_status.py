"""What an admin is told to see to, by how the keys stand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from exchange.node.hardening import Protection
from exchange.node.key_status import (
    BackupState,
    Epoch,
    KeyState,
    KeystoreState,
    NodeBackupState,
    PassphraseState,
    RevocationState,
    SigningState,
    advise,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WELL = KeyState(
    origin="exchange.hackney.example",
    running=True,
    signing=SigningState(fingerprint="0" * 64, since=NOW - 30 * DAY, rotating=False),
    sealing=(Epoch(not_before=NOW - DAY, not_after=NOW + 6 * DAY, opens_until=NOW + 20 * DAY),),
    log_size=3,
    keystore=KeystoreState(file="/keystore.json", opslimit=3, memlimit_bytes=2**28, current=True),
    passphrase=PassphraseState(source="credential", place="exchange-passphrase", beside_keystore=False),
    open_to_others=(),
    backup=BackupState(at=NOW - DAY, by="shares", threshold=3, count=5, current=True),
    node_backup=NodeBackupState(at=NOW - DAY, key_id="0" * 32, log_size=3, current=True),
    revocation=RevocationState(prepared_at=NOW - DAY, current=False),
    protection=Protection(dumps_off=True, memory_locked=True, reason=""),
)


OLD_BACKUP = BackupState(at=NOW, by="passphrase", threshold=None, count=None, current=False)


def codes(**changes: Any) -> list[str]:
    return [advice.code for advice in advise(msgspec.structs.replace(WELL, **changes), NOW)]


def test_where_all_is_well_there_is_nothing_to_do() -> None:
    assert codes() == []
    assert codes(running=False, protection=None, log_size=None) == []


def epoch(begins: timedelta, ends: timedelta) -> tuple[Epoch, ...]:
    return (Epoch(not_before=NOW + begins, not_after=NOW + ends, opens_until=NOW + ends + 14 * DAY),)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"signing": SigningState(fingerprint="0" * 64, rotating=True)}, ["rotating"]),
        ({"signing": None}, []),
        ({"sealing": ()}, ["no-sealing-key"]),
        ({"sealing": epoch(-8 * DAY, timedelta())}, ["no-sealing-key"]),
        ({"sealing": epoch(timedelta(seconds=1), 7 * DAY)}, ["no-sealing-key"]),
        ({"sealing": epoch(timedelta(), timedelta(seconds=1))}, []),
        ({"open_to_others": ("/a", "/b")}, ["open", "open"]),
        ({"backup": None}, ["no-backup"]),
        (
            {"backup": BackupState(at=NOW, by="passphrase", threshold=None, count=None, current=False)},
            ["backup-outdated"],
        ),
        ({"node_backup": None}, ["no-node-backup"]),
        ({"node_backup": NodeBackupState(at=NOW, key_id="0", log_size=3, current=False)}, ["node-backup-outdated"]),
        ({"node_backup": NodeBackupState(at=NOW - 2 * DAY, key_id="0", log_size=3, current=True)}, []),
        ({"node_backup": NodeBackupState(at=NOW - 3 * DAY, key_id="0", log_size=3, current=True)}, ["node-backup-old"]),
        ({"revocation": None}, ["no-revocation"]),
        ({"keystore": KeystoreState(file="/k", opslimit=1, memlimit_bytes=8192, current=False)}, ["cost-low"]),
        ({"passphrase": PassphraseState(source="file", place="/p", beside_keystore=True)}, ["passphrase-beside"]),
        ({"protection": Protection(True, False, "memory is not locked")}, ["unprotected"]),
    ],
)
def test_each_thing_that_is_not_well_is_told_once(changes: dict[str, Any], told: list[str]) -> None:
    assert codes(**changes) == told


def test_the_most_pressing_comes_first() -> None:
    assert codes(sealing=(), backup=None, open_to_others=("/a",)) == ["no-sealing-key", "open", "no-backup"]
