"""Sealing keys of real processes: changed and destroyed while messages go on, in the database and in the keystore."""

import sqlite3
from contextlib import closing

import pytest

from exchange.crypto.chain import WrappingChain
from exchange.crypto.keystore import unlock_keystore
from exchange.crypto.secret import Secret
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example, introduce, until

DAY_S = 86_400
FORM = example("case-study-j")


def chain_of(borough: Borough) -> WrappingChain:
    """The chain in the keystore on the disk."""
    passphrase = Secret((borough.directory / "passphrase").read_bytes().strip())
    entries = unlock_keystore((borough.directory / "keystore.json").read_bytes(), passphrase)
    return WrappingChain.parse(entries["sealing-chain"])


def seeds_of(borough: Borough) -> dict[int, bytes]:
    """The sealing keys in the database, by epoch."""
    with closing(sqlite3.connect(borough.directory / "exchange.db")) as database:
        return dict(database.execute("SELECT epoch, wrapped_seed FROM sealing_keys").fetchall())


def is_received(borough: Borough, message_id: str) -> bool:
    """Whether every section of a message was received by the other node."""
    return all(section["rung"] for section in borough.status(message_id, "received", 5)["sections"])


@pytest.mark.sqlite
@pytest.mark.slow
def test_keys_are_changed_and_destroyed_while_messages_go_on(town: Town) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    enfield.configure("keys", sealing_lifetime_days=20 / DAY_S, sealing_grace_days=10 / DAY_S)
    with closing(sqlite3.connect(enfield.directory / "exchange.db")) as database:
        # The one that `init` made lives for a week.
        database.execute("DELETE FROM sealing_keys")
        database.commit()
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    ((epoch, seed),) = seeds_of(enfield).items()
    chain = chain_of(enfield)
    assert chain.epoch <= epoch
    first = hackney.send(FORM, ENFIELD)
    until("the first message was received", lambda: is_received(hackney, first))
    until("the first key is destroyed", lambda: chain_of(enfield).epoch > epoch)
    for path in enfield.directory.iterdir():
        if path.is_file():
            assert seed not in path.read_bytes(), path.name
    assert chain_of(enfield).encode() == chain.advance(chain_of(enfield).epoch).encode()
    second = hackney.send(FORM, ENFIELD)
    until("the second message was received", lambda: is_received(hackney, second))
    enfield.stop()
    enfield.start()
    third = hackney.send(FORM, ENFIELD)
    until("the third message was received", lambda: is_received(hackney, third))
