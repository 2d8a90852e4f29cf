"""TLS 1.3 between nodes: certificates, pins, and the contexts that hold connections to them. No store, no clock.

* A pin is the SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469, section 2.4): the certificate may be of any
  authority, or of none.
* A pin is checked in the handshake itself. A context that is made here gives no connection that has not passed it, and
  nothing is read or written before.
* A mutual listener trusts the certificates in its peers' cards, and no authority. It names none of them to strangers.
* There are no session tickets: each connection proves itself anew.

A node calls with a certificate of its own, made from its keystore. It needs no file, and it works where a proxy answers
for the node; public authorities do not give certificates for clients.
"""

import hashlib
import os
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from exchange.crypto.names import context
from exchange.crypto.rest import StoreKey
from exchange.crypto.secret import Secret
from exchange.node.config import AgenciesTable, Configuration, ListenTable
from exchange.node.errors import CertificateUnusable, ConfigurationInvalid

#: RFC 5280, section 4.1.2.5: a certificate without an end.
_WITHOUT_END: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
#: The one group of a listener; `ssl` takes one or OpenSSL's defaults, of which X448 and P-521 are not wanted.
_GROUP: Final = "X25519"
_WARN_AT_MOST: Final = timedelta(days=21)


def spki_sha256(certificate: bytes) -> bytes:
    """The pin of a certificate in DER.

    Raises:
        CertificateUnusable: it cannot be read.
    """
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    except Exception as error:  # noqa: BLE001 - the other side chose these bytes: whatever is made of them, no pin
        raise CertificateUnusable(f"a certificate cannot be read: {type(error).__name__}") from None


def _load(context_: ssl.SSLContext, pem: bytes) -> None:
    """Load a chain and its key from memory; the library takes files alone."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pem)
        # An empty passphrase: for a key that has one, the library would ask on the terminal and wait.
        context_.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """The certificate with which a node calls, in DER, and what a context loads."""

    certificate: bytes
    pem: Secret

    def load(self, into: ssl.SSLContext) -> None:
        """Present this certificate where the other side asks for one."""
        _load(into, self.pem.reveal())


def client_identity(store_key: StoreKey) -> ClientIdentity:
    """The certificate with which the node of a keystore calls: the same at every start.

    It names no borough: whoever meets it without the cards learns nothing from it.
    """
    seed = HKDFExpand(SHA256(), 32, context("tls-client")).derive(store_key.reveal())
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key()
    number = hashlib.sha256(public.public_bytes_raw()).digest()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"exchange {number[:16].hex()}")])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(int.from_bytes(number[:8]) | 1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(_WITHOUT_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, None)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ClientIdentity(
        certificate.public_bytes(Encoding.DER), Secret(private + certificate.public_bytes(Encoding.PEM))
    )


@dataclass(frozen=True, slots=True)
class ListenerCertificate:
    """The listener's certificate and key: they belong together."""

    pin: bytes
    not_before: datetime
    not_after: datetime
    pem: Secret = field(repr=False)

    def is_near_its_end(self, now: datetime) -> bool:
        """Whether it should have been renewed: a sixth of its life is left, or three weeks."""
        return self.not_after - now < min((self.not_after - self.not_before) / 6, _WARN_AT_MOST)


def listener_certificate(chain: bytes, key: bytes) -> ListenerCertificate:
    """A certificate chain and its key, in PEM, the node's own certificate first.

    Raises:
        CertificateUnusable: they cannot be read, or do not belong together.
    """
    pem = key.rstrip() + b"\n" + chain
    try:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pem)
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except (ssl.SSLError, OSError, ValueError, IndexError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise CertificateUnusable(f"the certificate or its key cannot be used: {reason}") from None
    pin = spki_sha256(leaf.public_bytes(Encoding.DER))
    return ListenerCertificate(pin, leaf.not_valid_before_utc, leaf.not_valid_after_utc, Secret(pem))


def read_certificate_files(configuration: Configuration, table: ListenTable | AgenciesTable) -> tuple[bytes, bytes]:
    """What is in the files that a listener's table names: the chain and the key.

    Raises:
        OSError: they cannot be read.
    """
    return configuration.resolve(table.certificate).read_bytes(), configuration.resolve(table.key).read_bytes()


class Certificates:
    """With what a node proves itself: as the one who calls, and as the one who listens, where it does TLS itself.

    `following` is the listener's next certificate: the card names its key beside that of the one in use, until the
    peers know it.
    """

    def __init__(self, client: ClientIdentity, serving: ListenerCertificate | None, *, mutual: bool) -> None:
        self.client = client
        self.serving = serving
        self.following: ListenerCertificate | None = None
        self._mutual = mutual

    @property
    def pins(self) -> tuple[bytes, ...]:
        """The pins that the card names, in order: none where an authority vouches for the listener."""
        held = (self.serving, self.following) if self._mutual else ()
        return tuple(sorted({certificate.pin for certificate in held if certificate is not None}))


def own_certificates(configuration: Configuration, store_key: StoreKey) -> Certificates:
    """The certificates of a node.

    Raises:
        ConfigurationInvalid: the files that the configuration names cannot be used.
    """
    table = configuration.tables.listen
    serving = first_certificate(configuration, "listen", table)
    return Certificates(client_identity(store_key), serving, mutual=table.mutual)


def first_certificate(
    configuration: Configuration, name: str, table: ListenTable | AgenciesTable
) -> ListenerCertificate | None:
    """The certificate with which a listener starts; None where it does no TLS itself.

    Raises:
        ConfigurationInvalid: the files that the table `name` names cannot be used.
    """
    if not table.certificate:
        return None
    try:
        return listener_certificate(*read_certificate_files(configuration, table))
    except OSError as error:
        raise ConfigurationInvalid(f"{name}: cannot read {error.filename}: {error.strerror}") from None
    except CertificateUnusable as error:
        raise ConfigurationInvalid(f"{name}: {error}") from None


class PinnedObject(ssl.SSLObject):
    """One connection; its handshake ends only where the other side's key is one that the context admits."""

    pin: bytes

    def do_handshake(self) -> None:
        """Shake hands.

        Raises:
            ssl.SSLError: the other side has no such key.
        """
        admits = self.context
        assert isinstance(admits, PinnedContext)  # noqa: S101 - a pinned context alone makes these
        try:
            super().do_handshake()
            self.pin = _admitted_pin(self.getpeercert(binary_form=True), admits.admits)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            admits.refused()
            raise


def _admitted_pin(certificate: bytes | None, admits: Callable[[bytes], bool]) -> bytes:
    try:
        pin = spki_sha256(certificate or b"")
    except CertificateUnusable:
        pin = b""
    if not admits(pin):
        error = ssl.SSLCertVerificationError("its key is not the one that its card names")
        error.verify_code, error.verify_message = 0, "its key is not the one that its card names"
        raise error
    return pin


class PinnedContext(ssl.SSLContext):
    """A context whose connections are held to pins: asyncio and uvloop make them through `wrap_bio`."""

    sslobject_class = PinnedObject
    admits: Callable[[bytes], bool]
    refused: Callable[[], None]

    def __new__(
        cls, protocol: int, admits: Callable[[bytes], bool], refused: Callable[[], None] = lambda: None
    ) -> "PinnedContext":
        made = super().__new__(cls, protocol)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        made.admits = admits
        made.refused = refused
        return made


def calling_context(pins: Iterable[bytes], identity: ClientIdentity) -> ssl.SSLContext:
    """A context for calls to a peer whose card names pins: they vouch for it, and no authority need."""
    known = frozenset(pins)
    made = PinnedContext(ssl.PROTOCOL_TLS_CLIENT, known.__contains__)
    made.check_hostname = False
    # The library verifies chains or nothing. That the other side has the key it verifies in any case (RFC 8446,
    # section 4.4.3), and whose key it is `PinnedObject` sees before a byte is written.
    made.verify_mode = ssl.CERT_NONE
    identity.load(made)
    return made


def listening_context(certificate: ListenerCertificate) -> ssl.SSLContext:
    """A context for a listener that asks nobody for a certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.set_ecdh_curve(_GROUP)
    made.num_tickets = 0
    _load(made, certificate.pem.reveal())
    return made


def mutual_context(
    certificate: ListenerCertificate,
    anchors: Iterable[bytes],
    admits: Callable[[bytes], bool],
    refused: Callable[[], None] = lambda: None,
) -> ssl.SSLContext:
    """A context for a listener that admits those who show one of the certificates `anchors`, in DER.

    A certificate among them that is an authority's cannot vouch for another: the pin is checked too.
    """
    made = PinnedContext(ssl.PROTOCOL_TLS_SERVER, admits, refused)
    made.set_ecdh_curve(_GROUP)
    made.num_tickets = 0
    _load(made, certificate.pem.reveal())
    made.verify_mode = ssl.CERT_REQUIRED
    # One that an authority gave is trusted by itself, without its authority.
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for anchor in anchors:
        made.load_verify_locations(cadata=anchor)
    return made


def is_usable_anchor(certificate: bytes) -> bool:
    """Whether a certificate that a peer chose can be loaded; one that cannot must not shut out the others."""
    try:
        spki_sha256(certificate)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=certificate)
    except (CertificateUnusable, ssl.SSLError, ValueError):
        return False
    return True


class Door(ssl.SSLContext):
    """What a listener is given once and for all: each new connection gets the context that is in force then."""

    current: ssl.SSLContext

    def __new__(cls, first: ssl.SSLContext) -> "Door":
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made.current = first
        return made

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """One connection."""
        return self.current.wrap_bio(*arguments, **options)
