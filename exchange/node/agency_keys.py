"""Agencies with a key of their own: register it, have it proven, and find what of a message is sealed to it.

* A key is announced in the card only once the agency has shown that it holds it.
* The node keeps which key is or was whose, and forwards what is sealed to one. It opens none of that.
* Each kind of agency has keys of its own: with one key for two, each could read what is for the other.
* The card announces one key for each kind: it is that of the agency which is named by its kind alone.
"""

import json
import secrets
from collections.abc import Iterable, Mapping

from exchange.crypto.errors import CryptoError
from exchange.crypto.names import SealingKeyId, context
from exchange.crypto.possession import Claim, seal_challenge
from exchange.crypto.rest import open_at_rest, seal_at_rest
from exchange.crypto.secret import Secret
from exchange.node.errors import RequestInvalid
from exchange.node.services import Services
from exchange.schema.agency_keys import (
    AgencyKeyFile,
    AnswerFile,
    ChallengeFile,
    check_possession,
    sealing_key,
    signing_keys,
)
from exchange.schema.errors import AgencyKeyInvalid
from exchange.schema.wire import Manifest, ParcelEntry
from exchange.store.agencies import AgencyRow
from exchange.store.agency_keys import AgencyKeyRow, all_agency_keys, kinds_by_key
from exchange.store.errors import NotFound
from exchange.store.transaction import Transaction


def claimed_key(services: Services, agency: AgencyRow, file: AgencyKeyFile, *, holds: bool) -> AgencyKeyRow:
    """The row of a key that an agency is to prove, with a fresh challenge.

    Raises:
        RequestInvalid: it is no key, or the node's own, or the agency is not the one that its kind's key is for.
    """
    agency_id, kind = agency.id, agency.kind
    if agency.name != kind:
        raise RequestInvalid(
            f"a key of its own is for agency {kind} alone: the card announces one for each kind",
            hint=f"Register an agency named {kind} for what is sealed, or have {agency.name} do without a key.",
        )
    try:
        public = sealing_key(file)
        signing_keys(file)
    except AgencyKeyInvalid as error:
        raise RequestInvalid(str(error), hint=error.hint) from None
    if public.key_id in services.keyring.sealing:
        raise RequestInvalid("that is this node's own key; an agency makes its own, elsewhere")
    nonce = Secret(secrets.token_bytes(32))
    claim = Claim(services.configuration.origin, kind, file.signing_keys)
    return AgencyKeyRow(
        agency=agency_id,
        key_id=public.key_id,
        kind=kind,
        key=file.key,
        signing_keys=json.dumps(file.signing_keys),
        holds=int(holds),
        challenge=seal_challenge(public, claim, nonce),
        wrapped_nonce=seal_at_rest(services.keyring.store_key, _nonce_place(agency_id, public.key_id), nonce.reveal()),
        added_at_ms=services.now_ms(),
        proven_at_ms=None,
        ended_at_ms=None,
    )


def _nonce_place(agency_id: str, key_id: bytes) -> bytes:
    return context("agency-nonce", agency_id.encode(), key_id)


async def check_unused(tx: Transaction, wanted: AgencyKeyRow) -> None:
    """Refuse a key that another kind of agency has or had, and one that this agency has given up.

    Raises:
        RequestInvalid: it is one of these.
    """
    for row in await all_agency_keys(tx):
        if row.key_id != wanted.key_id:
            continue
        if row.kind != wanted.kind:
            raise RequestInvalid(f"that key is of agency {row.kind}; each kind of agency makes a key of its own")
        if row.agency == wanted.agency and not row.is_pending:
            raise RequestInvalid("the agency has proven that key before; it makes a new one to change to")


def challenge_of(services: Services, row: AgencyKeyRow) -> ChallengeFile:
    """What the agency is to open."""
    return ChallengeFile(
        format="exchange-agency-challenge/1",
        origin=services.configuration.origin,
        kind=row.kind,
        key_id=row.key_id,
        challenge=row.challenge or b"",
    )


def check_proof(services: Services, row: AgencyKeyRow, answer: AnswerFile) -> None:
    """Check that an agency holds the key that it claims, and the signing keys beside it.

    Raises:
        RequestInvalid: the answer does not show that.
    """
    place = _nonce_place(row.agency, row.key_id)
    nonce = Secret(open_at_rest(services.keyring.store_key, place, row.wrapped_nonce or b""))
    vkeys = row.vkeys
    file = AgencyKeyFile(format="exchange-agency-key/1", key=row.key, signing_keys=vkeys)
    claim = Claim(services.configuration.origin, row.kind, vkeys)
    try:
        check_possession(answer, nonce, claim, SealingKeyId(row.key_id), signing_keys(file))
    except (CryptoError, AgencyKeyInvalid) as error:
        raise RequestInvalid(f"the key is not proven: {error}", hint=error.hint) from None


def pending_key(rows: Iterable[AgencyKeyRow], agency_id: str) -> AgencyKeyRow:
    """The key that an agency is yet to prove.

    Raises:
        NotFound: there is none.
    """
    for row in rows:
        if row.agency == agency_id and row.is_pending:
            return row
    raise NotFound(
        f"agency {agency_id} has no key to prove", hint="Register one: exchange agency rekey ID --sealed-key FILE"
    )


def own_parcel(manifest: Manifest, kinds: Mapping[bytes, str], kind: str) -> ParcelEntry | None:
    """The parcel of a message that is for a key of that kind of agency, if it has one."""
    return next((parcel for parcel in manifest.parcels if kinds.get(parcel.key_id) == kind), None)


async def sealed_kinds(services: Services, tx: Transaction, manifest: Manifest) -> frozenset[str]:
    """The kinds of agency that have a parcel of their own in a message."""
    if not is_for_others(services, manifest):
        return frozenset()
    kinds = kinds_by_key(await all_agency_keys(tx))
    return frozenset(kinds[parcel.key_id] for parcel in manifest.parcels if parcel.key_id in kinds)


def is_for_others(services: Services, manifest: Manifest) -> bool:
    """Whether a message has parcels that are not for a key of this node."""
    return any(parcel.key_id not in services.keyring.sealing for parcel in manifest.parcels)


def describe_keys(rows: Iterable[AgencyKeyRow], agency_id: str) -> dict[str, str | None]:
    """Which key of its own an agency has, and which it is yet to prove."""
    mine = [row for row in rows if row.agency == agency_id]
    return {
        "key_id": next((row.key_id.hex() for row in mine if row.is_in_force), None),
        "pending_key_id": next((row.key_id.hex() for row in mine if row.is_pending), None),
    }
