"""What the node remembers of identities: who verified which, how they rotated, which were revoked; and invitations.

Every query is by primary key or by the origin's index.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select, update

from exchange.store.errors import NotFound
from exchange.store.log import ProvenEntry, proven_at
from exchange.store.tables import invitations, revocations, rotations, verifications
from exchange.store.transaction import Sql, Transaction


@dataclass(frozen=True, slots=True)
class VerificationRow:
    """Somebody compared an identity out of band, or it proved itself."""

    origin: str
    fingerprint: str
    how: str
    who: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class RotationRow:
    """An identity passed itself on; `proof` stands for those of other nodes' logs, `position` for our own."""

    old_fingerprint: str
    origin: str
    new_fingerprint: str
    statement: bytes
    proof: str | None
    position: int | None
    at_ms: int


@dataclass(frozen=True, slots=True)
class RevocationRow:
    """An identity revoked itself."""

    fingerprint: str
    origin: str
    statement: bytes
    proof: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class InvitationRow:
    """An invitation until it expires; its secret, and what goes with it, is wrapped by the store key."""

    id: str
    wrapped_secret: bytes
    by: str
    created_at_ms: int
    expires_at_ms: int


_VERIFICATION = tuple(column for column in verifications.c if column.name != "number")
_add_verification = Sql(insert(verifications).values({column.name: bindparam(column.name) for column in _VERIFICATION}))
_verifications = Sql(
    select(*_VERIFICATION).where(verifications.c.origin == bindparam("origin")).order_by(verifications.c.number)
)
_add_rotation = Sql(insert(rotations).values({column.name: bindparam(column.name) for column in rotations.c}))
_rotation = Sql(select(*rotations.c).where(rotations.c.old_fingerprint == bindparam("fingerprint")))
_forget_rotation = Sql(delete(rotations).where(rotations.c.old_fingerprint == bindparam("fingerprint")))
_rotations = Sql(select(*rotations.c).where(rotations.c.origin == bindparam("origin")).order_by(rotations.c.at_ms))
_add_revocation = Sql(insert(revocations).values({column.name: bindparam(column.name) for column in revocations.c}))
_revocation = Sql(select(*revocations.c).where(revocations.c.fingerprint == bindparam("fingerprint")))
_revoked = Sql(select(revocations.c.fingerprint).where(revocations.c.origin == bindparam("origin")))
_add_invitation = Sql(insert(invitations).values({column.name: bindparam(column.name) for column in invitations.c}))
_invitation = Sql(
    select(*invitations.c).where(invitations.c.id == bindparam("id"), invitations.c.expires_at_ms > bindparam("now_ms"))
)
_invitations = Sql(
    select(*invitations.c)
    .where(invitations.c.expires_at_ms > bindparam("now_ms"))
    .order_by(invitations.c.created_at_ms)
)
_withdraw_invitation = Sql(delete(invitations).where(invitations.c.id == bindparam("id")))
_rewrap_invitation = Sql(
    update(invitations)
    .where(invitations.c.id == bindparam("which"), invitations.c.wrapped_secret == bindparam("before"))
    .values(wrapped_secret=bindparam("after"))
)
_expire_invitations = Sql(delete(invitations).where(invitations.c.expires_at_ms <= bindparam("now_ms")))


async def add_verification(tx: Transaction, row: VerificationRow) -> None:
    """Record a verification; it is never changed or deleted."""
    await tx.execute(_add_verification, {column.name: getattr(row, column.name) for column in _VERIFICATION})


async def verifications_of(tx: Transaction, origin: str) -> list[VerificationRow]:
    """Who verified a peer, oldest first."""
    return [VerificationRow(*row) for row in await tx.fetch_all(_verifications, {"origin": origin})]


async def add_rotation(tx: Transaction, row: RotationRow, *, followed: bool = False) -> None:
    """Keep a rotation; one of the same identity that is here already stays, unless this one was `followed`."""
    if followed:
        await tx.execute(_forget_rotation, {"fingerprint": row.old_fingerprint})
    if await tx.fetch_one(_rotation, {"fingerprint": row.old_fingerprint}) is None:
        await tx.execute(_add_rotation, {column.name: getattr(row, column.name) for column in rotations.c})


async def rotation_from(tx: Transaction, fingerprint: str) -> RotationRow | None:
    """How an identity was passed on, if it was."""
    row = await tx.fetch_one(_rotation, {"fingerprint": fingerprint})
    return RotationRow(*row) if row else None


async def rotations_of(tx: Transaction, origin: str) -> list[RotationRow]:
    """How an origin's identity was passed on, oldest first."""
    return [RotationRow(*row) for row in await tx.fetch_all(_rotations, {"origin": origin})]


def heirs(rows: Iterable[RotationRow], fingerprint: str) -> list[str]:
    """An identity and those to which it was passed on, one after the other."""
    after = {row.old_fingerprint: row.new_fingerprint for row in rows}
    line = [fingerprint]
    while (heir := after.get(line[-1])) is not None and heir not in line:
        line.append(heir)
    return line


async def proven_rotations(tx: Transaction, origin: str) -> list[ProvenEntry]:
    """The rotations of an origin with their proofs, oldest first."""
    found = []
    for row in await rotations_of(tx, origin):
        if row.proof is not None:
            found.append(ProvenEntry(row.statement, row.proof))
        elif row.position is not None:
            # Against the first checkpoint that covers it: that is the one that both old and new keys signed.
            found.append(await proven_at(tx, row.position))
    return found


async def add_revocation(tx: Transaction, row: RevocationRow) -> None:
    """Keep a revocation; the same again changes nothing."""
    if await tx.fetch_one(_revocation, {"fingerprint": row.fingerprint}) is None:
        await tx.execute(_add_revocation, {column.name: getattr(row, column.name) for column in revocations.c})


async def revocation_of(tx: Transaction, fingerprint: str) -> RevocationRow | None:
    """The revocation of an identity, if it was revoked."""
    row = await tx.fetch_one(_revocation, {"fingerprint": fingerprint})
    return RevocationRow(*row) if row else None


async def revoked_identities(tx: Transaction, origin: str) -> frozenset[str]:
    """The fingerprints of an origin that were revoked."""
    return frozenset(str(row[0]) for row in await tx.fetch_all(_revoked, {"origin": origin}))


async def add_invitation(tx: Transaction, row: InvitationRow) -> None:
    """Keep an invitation until it expires or is withdrawn."""
    await tx.execute(_expire_invitations, {"now_ms": row.created_at_ms})
    await tx.execute(_add_invitation, {column.name: getattr(row, column.name) for column in invitations.c})


async def invitation(tx: Transaction, invitation_id: str, now_ms: int) -> InvitationRow | None:
    """An invitation that has not expired, if there is one of that id."""
    row = await tx.fetch_one(_invitation, {"id": invitation_id, "now_ms": now_ms})
    return InvitationRow(*row) if row else None


async def all_invitations(tx: Transaction, now_ms: int) -> list[InvitationRow]:
    """Every invitation that has not expired, oldest first."""
    return [InvitationRow(*row) for row in await tx.fetch_all(_invitations, {"now_ms": now_ms})]


async def rewrap_invitation(tx: Transaction, row: InvitationRow, wrapped: bytes) -> bool:
    """Change what is wrapped; False where somebody else has since."""
    parameters = {"which": row.id, "before": row.wrapped_secret, "after": wrapped}
    return await tx.execute(_rewrap_invitation, parameters) == 1


async def withdraw_invitation(tx: Transaction, invitation_id: str) -> None:
    """Delete an invitation.

    Raises:
        NotFound: there is none of that id.
    """
    if await tx.execute(_withdraw_invitation, {"id": invitation_id}) == 0:
        raise NotFound("there is no such invitation", hint="`exchange peer invitations` lists those that there are.")
