"""What can go wrong with cryptography. Messages never hold key material or plaintext."""

from typing import ClassVar

from exchange.errors import ExchangeError


class CryptoError(ExchangeError):
    """Bytes were refused."""

    code: ClassVar[str] = "crypto"


class NameInvalid(CryptoError):
    """An origin, message id or section name is not well formed."""

    code = "name-invalid"
    hint = "An origin is a lower-case host name without a scheme, such as exchange.hackney.example."


class StatementError(CryptoError):
    """Bytes are not one well-formed statement."""

    code = "statement-malformed"


class NoteError(CryptoError):
    """Text is not a well-formed signed note, or a key is not a well-formed vkey."""

    code = "note-malformed"


class CheckpointError(CryptoError):
    """A signed note is not a checkpoint of the expected log."""

    code = "checkpoint-malformed"


class SignatureError(CryptoError):
    """A signature is missing, doubled or wrong."""

    code = "signature-wrong"
    hint = "Compare fingerprints with the other borough by telephone before trusting anything new from it."


class ProofError(CryptoError):
    """A proof is malformed, or does not lead to the root that it must lead to."""

    code = "proof-wrong"


class PaddingError(CryptoError):
    """Padding is not the canonical one."""

    code = "padding-wrong"


class SealError(CryptoError):
    """An HPKE ciphertext does not open under this key and context."""

    code = "seal-wrong"


class SectionError(CryptoError):
    """A section does not open under this secret and context."""

    code = "section-wrong"


class CommitmentError(SectionError):
    """A section opens, but not to the text that the sender committed to."""

    code = "commitment-wrong"


class ParcelError(CryptoError):
    """A parcel does not open under this key and context."""

    code = "parcel-wrong"


class PossessionError(CryptoError):
    """A challenge is for another key, or its answer is wrong."""

    code = "possession-wrong"
    hint = "Make a new challenge, and answer it with the key that was registered."


class EnvelopeError(CryptoError):
    """An envelope or reply does not open."""

    code = "envelope-wrong"


class UnknownVersion(EnvelopeError):
    """An envelope is of another version of the protocol."""

    code = "version-unknown"
    hint = "Both nodes must run a release that speaks version 1."


class UnknownKey(EnvelopeError):
    """An envelope is for a sealing key that is not at hand."""

    code = "key-unknown"
    hint = "Fetch the receiver's card again: its sealing keys live for a few days only."


class EnvelopeTooLarge(EnvelopeError):
    """An envelope is larger than the protocol allows."""

    code = "too-large"


class RestError(CryptoError):
    """Something in the store does not open: it was altered, or belongs to another keystore."""

    code = "at-rest-wrong"
    hint = "Restore the store and the keystore from the same backup."


class ChainError(CryptoError):
    """A key that wraps sealing keys is asked for an epoch that it cannot reach: those behind it are destroyed."""

    code = "epoch-wrong"
    hint = "Restore the store and the keystore from the same backup."


class KeystoreError(CryptoError):
    """The keystore cannot be read."""

    code = "keystore"


class WrongPassphrase(KeystoreError):
    """The passphrase does not open the keystore."""

    code = "wrong-passphrase"
    hint = "Check the passphrase, or the file or credential that holds it; nothing was changed."


class KeystoreCorrupt(KeystoreError):
    """The keystore file is not well formed."""

    code = "keystore-corrupt"
    hint = "Restore the keystore file from its backup."


class BackupError(CryptoError):
    """A backup of keys cannot be used."""

    code = "backup"


class BackupCorrupt(BackupError):
    """A file is not a backup of keys."""

    code = "backup-corrupt"
    hint = "Use another copy of the file; nothing was changed."


class BackupRefused(BackupError):
    """A backup does not open with what was given."""

    code = "backup-refused"
    hint = "Check what you gave, or use another copy of the file; nothing was changed."


class ShareError(BackupError):
    """Words are not a share of a key, or shares do not make one."""

    code = "share-wrong"
    hint = "Check the words against the paper, and that the shares are of this backup; nothing was changed."


class LogContradicted(CryptoError):
    """Checkpoints that the same keys signed are of two logs."""

    code = "log-contradicted"
    hint = "Somebody else signs with this node's keys, or the store is of another copy. See docs/backup.md."


class AttachmentError(CryptoError):
    """An attachment, or a chunk of one, is not what its section or its sender says."""

    code = "attachment-wrong"
    hint = "Nothing of it was given out. Ask the sender to send it again."


class ArchiveError(CryptoError):
    """A backup of a node cannot be used."""

    code = "archive"


class ArchiveCorrupt(ArchiveError):
    """A file is not a backup of a node, or not the whole of one."""

    code = "archive-corrupt"
    hint = "Use another copy of the file; nothing was changed."


class ArchiveRefused(ArchiveError):
    """A backup of a node does not open with the key that was given."""

    code = "archive-refused"
    hint = "Check that it is the key that the backup was made for; nothing was changed."
