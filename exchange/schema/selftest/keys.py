"""What code may have taken a secret for, and what somebody may have made of its text.

The node says nothing of a secret that whoever asks does not have nearly whole: it is no oracle for it.
"""

import base64
import binascii
import hmac
from collections.abc import Iterator
from typing import Final

from exchange.crypto.webhook_key import PUBLIC_PREFIX
from exchange.schema.selftest.findings import Finding, finding

PREFIX: Final = "whsec_"
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URLSAFE: Final = str.maketrans("+/", "-_")
#: So many characters may be missing at a secret's end for it to be recognised.
_MOST_CUT: Final = 4


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: 32 bytes; nothing where it is no secret."""
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""


def key_forms(secret: str, public_key: str | None) -> Iterator[tuple[tuple[Finding, ...], bytes]]:
    """The key of a secret, then what code may have used in its place."""
    key, rest = key_of(secret), secret.removeprefix(PREFIX)
    yield (), key
    forms = [
        ("key-text", _bytes(secret)),
        ("key-not-decoded", _bytes(rest)),
        ("key-prefix-decoded", _lenient(secret)),
        ("key-prefix-decoded", _lenient(secret.replace("_", "/"))),
        ("key-hex", key.hex().encode()),
        ("key-hex", key.hex().upper().encode()),
    ]
    if "+" in rest or "/" in rest:
        forms.append(("key-urlsafe", _lenient(rest.replace("+", "").replace("/", ""))))
    forms += [("key-line-end", _bytes(text + end)) for text in (secret, rest) for end in ("\n", "\r\n")]
    if public_key is not None:
        forms.append(("key-public", key_of(public_key.removeprefix(PUBLIC_PREFIX))))
    yield from (((finding(code),), form) for code, form in forms if form)


def _lenient(text: str) -> bytes:
    """Base64 as decoders read it that pass over what they do not know and ask for no padding."""
    bits = [_ALPHABET.index(sign) for sign in text if sign in _ALPHABET]
    value = sum(part << 6 * place for place, part in enumerate(reversed(bits)))
    spare = 6 * len(bits) % 8
    return (value >> spare).to_bytes(6 * len(bits) // 8, "big")


def compare_secret(given: str, secrets: tuple[str, ...], public_key: str | None) -> Finding:
    """What the text that a receiver takes for the secret is; the secret in force comes first."""
    if not secrets:
        return finding("secret-unknown")
    current = secrets[0]
    if _same(given.removeprefix(PREFIX), current.removeprefix(PREFIX)):
        return finding("secret-right")
    if any(_same(given.removeprefix(PREFIX), old.removeprefix(PREFIX)) for old in secrets[1:]):
        return finding("secret-is-old")
    bare = given.strip(" \t\r\n\"'\ufeff")
    if public_key is not None and _same(bare, public_key):
        return finding("secret-public")
    rest = bare[len(PREFIX) :] if bare.lower().startswith(PREFIX) else bare
    for secret in secrets:
        wanted = secret.removeprefix(PREFIX)
        if _same(rest, wanted):
            return finding("secret-spaces")
        if _same(rest, wanted.translate(_URLSAFE)) or _same(rest, wanted.translate(_URLSAFE).rstrip("=")):
            return finding("secret-urlsafe")
        if _same(rest.lower(), key_of(secret).hex()):
            return finding("secret-hex")
        if wanted.startswith(rest) and 0 < len(wanted) - len(rest) <= _MOST_CUT:
            return finding("secret-cut")
        if _same(rest.lower(), wanted.lower()):
            return finding("secret-case")
    return finding("secret-unknown")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(_bytes(one), _bytes(other))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
