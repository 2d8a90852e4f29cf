"""TLS certificates for tests, and clients that show them."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from exchange.crypto.secret import Secret
from exchange.node.tls import ClientIdentity, PinnedContext, spki_sha256

_USAGES = (
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in PEM; an authority of nobody's."""

    chain: bytes
    key: bytes

    @property
    def der(self) -> bytes:
        return x509.load_pem_x509_certificate(self.chain).public_bytes(Encoding.DER)

    @property
    def pin(self) -> bytes:
        return spki_sha256(self.der)

    @property
    def identity(self) -> ClientIdentity:
        """The same, to call with."""
        return ClientIdentity(self.der, Secret(self.key + self.chain))

    def write(self, directory: Path) -> "Certificate":
        """Put it where a node's configuration looks for it: the key last, each in one step."""
        for name, data in (("tls.crt", self.chain), ("tls.key", self.key)):
            draft = directory / f"{name}.new"
            draft.write_bytes(data)
            draft.replace(directory / name)
        return self


def make_certificate(
    name: str = "exchange.enfield.example",
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    issuer: Certificate | None = None,
    authority: bool = False,
    days: int = 60,
    server_only: bool = False,
    address: str = "",
) -> Certificate:
    """A certificate on P-256, signed by itself or by another; it has been valid for 30 days."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = _key_of(issuer) if issuer is not None else key
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.load_pem_x509_certificate(issuer.chain).subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * _DAY)
        .not_valid_after(now + days * _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if server_only:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    if address:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    if authority:
        usage = x509.KeyUsage(
            **dict.fromkeys(_USAGES, False), digital_signature=True, key_cert_sign=True, crl_sign=True
        )
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if issuer is not None:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    chain = builder.sign(signer, SHA256()).public_bytes(Encoding.PEM)
    return Certificate(chain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def renewed(old: Certificate) -> Certificate:
    """Another certificate for the same key."""
    return make_certificate(key=_key_of(old))


def _key_of(certificate: Certificate) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(certificate.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def without_certificate(pin: bytes) -> ssl.SSLContext:
    """A client that checks a server's pin and has nothing to show."""
    bare = PinnedContext(ssl.PROTOCOL_TLS_CLIENT, lambda found: found == pin)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE
    return bare


class Caller:
    """Somebody who calls a listener, over one connection for as long as that lives."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self._url = url
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=1), cookie_jar=aiohttp.DummyCookieJar()
        )

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def get(self, path: str = "/v1/health") -> int:
        """The status of a GET.

        Raises:
            aiohttp.ClientError: the connection was refused or closed.
        """
        async with self._http.get(self._url + path) as answer:
            await answer.read()
            return answer.status

    async def is_admitted(self) -> bool:
        """Whether a request is answered."""
        try:
            return await self.get() == 200
        except aiohttp.ClientError:
            return False
