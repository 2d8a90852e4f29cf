"""An agency's own keys: a sealing key with those before it, and a pair of signing keys, in a file under a passphrase.

* The file has the format of a keystore. Its public half goes to the borough's admin.
* Older sealing keys stay: what is under way was sealed to the key on the card that its sender holds.
* The signing keys stay through changes of the sealing key: they are who the agency is.

Source: docs/protocol.md, "Agencies' keys".
"""

from dataclasses import dataclass
from typing import Final

from exchange.agency.errors import KeyNotHere
from exchange.crypto.errors import KeystoreCorrupt, SealError
from exchange.crypto.keystore import Argon2Parameters, lock_keystore, unlock_keystore
from exchange.crypto.names import Origin, SealingKeyId, parse_origin
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret
from exchange.crypto.signing import SigningKeys
from exchange.schema.agency_keys import AgencyKeyFile, AnswerFile, ChallengeFile, answer_to

_NAME: Final = "agency/name"
_CURRENT: Final = "agency/current"
_ED25519: Final = "agency-signing/ed25519"
_MLDSA44: Final = "agency-signing/ml-dsa-44"
_SEALING: Final = "agency-sealing/"


@dataclass(frozen=True, slots=True, repr=False)
class AgencyKeys:
    """The keys of an agency; `sealing` holds the current key first, then those before it, the youngest first."""

    name: Origin
    signing: SigningKeys
    sealing: tuple[SealingPrivateKey, ...]

    @classmethod
    def generate(cls, name: Origin) -> "AgencyKeys":
        """Fresh keys of an agency of that name, which is like an origin: `housing.enfield.example`."""
        return cls(name, SigningKeys.generate(), (SealingPrivateKey.generate(),))

    def rotated(self) -> "AgencyKeys":
        """The same agency with a fresh sealing key before those that it has."""
        return AgencyKeys(self.name, self.signing, (SealingPrivateKey.generate(), *self.sealing))

    def private(self, key_id: bytes) -> SealingPrivateKey:
        """The sealing key of that id.

        Raises:
            KeyNotHere: it is none of this agency's.
        """
        for key in self.sealing:
            if key.public.key_id == key_id:
                return key
        raise KeyNotHere(f"this key file does not hold the key {key_id.hex()}")

    def public(self) -> AgencyKeyFile:
        """The public half, with the current sealing key."""
        return AgencyKeyFile(format="exchange-agency-key/1", key=self.sealing[0].public.raw, signing_keys=self.vkeys())

    def answer(self, challenge: ChallengeFile, timestamp_s: int) -> AnswerFile:
        """Answer a challenge. Who calls this has looked at its `origin` and `kind`: they are what is claimed.

        Raises:
            KeyNotHere: it is for another key.
            PossessionError: it does not open.
        """
        key = self.private(challenge.key_id)
        return answer_to(challenge, key, self.signing, self.vkeys(), timestamp_s)

    def vkeys(self) -> tuple[str, str]:
        """The keys by which the agency signs."""
        ed25519, mldsa44 = self.signing.verifiers(self.name)
        return ed25519.text(), mldsa44.text()


def lock_agency_keys(keys: AgencyKeys, passphrase: Secret, cost: Argon2Parameters | None = None) -> bytes:
    """The key file."""
    ed25519, mldsa44 = keys.signing.seeds()
    entries = {
        _NAME: keys.name.encode(),
        _CURRENT: b"".join(key.public.key_id for key in keys.sealing),
        _ED25519: ed25519.reveal(),
        _MLDSA44: mldsa44.reveal(),
        **{f"{_SEALING}{key.public.key_id.hex()}": key.seed().reveal() for key in keys.sealing},
    }
    return lock_keystore(entries, passphrase, cost)


def open_agency_keys(data: bytes, passphrase: Secret) -> AgencyKeys:
    """Open a key file.

    Raises:
        KeystoreCorrupt: it is none.
        WrongPassphrase: the passphrase does not open it.
    """
    entries = unlock_keystore(data, passphrase)
    if _NAME not in entries:
        raise KeystoreCorrupt("that is a keystore, and not the key file of an agency", hint="Name the agency's file.")
    try:
        order = entries[_CURRENT]
        ids = [SealingKeyId(order[at : at + 16]) for at in range(0, len(order), 16)]
        sealing = tuple(SealingPrivateKey(Secret(entries[f"{_SEALING}{key_id.hex()}"])) for key_id in ids)
        signing = SigningKeys(Secret(entries[_ED25519]), Secret(entries[_MLDSA44]))
        name = parse_origin(entries[_NAME].decode())
    except (KeyError, ValueError, SealError):
        raise KeystoreCorrupt("the key file lacks something") from None
    if not sealing or [key.public.key_id for key in sealing] != ids:
        raise KeystoreCorrupt("the key file's keys are not those that it names")
    return AgencyKeys(name, signing, sealing)
