"""A thief who recorded all traffic and later has the whole disk and the passphrase.

Nothing of this knows where a node keeps its sealing keys: every file is searched, byte by byte, for what opens a
recording, as it is or wrapped under any key that the keystore gives.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from exchange.crypto.chain import WrappingChain
from exchange.crypto.envelope import envelope_key_id, open_envelope, open_reply
from exchange.crypto.errors import CryptoError, EnvelopeError, KeystoreError, RestError, SealError
from exchange.crypto.keystore import unlock_keystore
from exchange.crypto.names import Origin, context
from exchange.crypto.rest import MessageKey, open_at_rest
from exchange.crypto.sealing import SealingPrivateKey
from exchange.crypto.secret import Secret

KEY_BYTES = 32
#: A seed at rest: nonce, seed, tag.
WRAPPED_BYTES = 24 + KEY_BYTES + 16
#: Of 32 random bytes, fewer than 20 different ones come up once in 10^9 times.
_MANY_DIFFERENT = 20
_ENVELOPE = b"exchange-envelope/1\n"
_EPOCHS_AHEAD = 12
_PRINTABLE = frozenset(range(0x20, 0x7F)) | {0x0A, 0x0D, 0x09}


@dataclass(frozen=True)
class Disk:
    """All files of a node's directory."""

    files: dict[str, bytes]

    @classmethod
    def image(cls, directory: Path) -> "Disk":
        """The directory as it is at this moment, while the node runs."""
        return cls({path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()})

    def windows(self, size: int) -> Iterator[bytes]:
        """Every run of that many bytes that may begin with a key, once each: in the files, and in base64 in them."""
        seen: set[bytes] = set()
        for data in self.files.values():
            for text in (data, *_decoded(data)):
                for at in range(len(text) - size + 1):
                    head = text[at : at + KEY_BYTES]
                    if len(set(head)) >= _MANY_DIFFERENT and not _PRINTABLE.issuperset(head):
                        window = text[at : at + size]
                        if window not in seen:
                            seen.add(window)
                            yield window


def _decoded(data: bytes) -> Iterator[bytes]:
    for run in re.findall(rb"[A-Za-z0-9+/]{40,}", data):
        whole = run[: len(run) - (len(run) % 4 == 1)]
        yield base64.b64decode(whole + b"=" * (-len(whole) % 4))


@dataclass
class Recording:
    """What went over the wire: the bodies of requests and answers."""

    envelopes: list[bytes] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)

    def take(self, stream: bytes) -> None:
        """Take the bodies out of what one side of a connection sent."""
        at = 0
        while (
            found := re.compile(rb"(?s)(?:^|(?<=.))([^\n]*\r\n(?:[^\r\n]+\r\n)*)\r\n").search(stream, at)
        ) is not None:
            headers = found[1].lower()
            length = re.search(rb"content-length: *([0-9]+)", headers)
            end = found.end() + (int(length[1]) if length else 0)
            body = stream[found.end() : end]
            if body.startswith(_ENVELOPE):
                self.envelopes.append(body)
            elif b"application/vnd.exchange.reply" in headers:
                self.replies.append(body)
            at = end


class Thief:
    """Tries everything that the disk and the passphrase give on everything that was recorded."""

    def __init__(self, recording: Recording, recipients: tuple[str, ...]) -> None:
        self._recording = recording
        self._recipients = [Origin(name) for name in recipients]
        self._wanted = {bytes(envelope_key_id(envelope)) for envelope in recording.envelopes}

    def search(self, disk: Disk, passphrase: bytes) -> list[bytes]:
        """What of the recording opens."""
        opened = [text for seed in self.seeds(disk, passphrase) for text in self._open(seed)]
        for window in disk.windows(KEY_BYTES):
            opened += self._try_key(window)
        return opened

    def _try_key(self, window: bytes) -> Iterator[bytes]:
        try:
            key = SealingPrivateKey(Secret(window))
        except SealError:
            return
        if bytes(key.public.key_id) in self._wanted:
            yield from self._open(key)
        for reply in self._recording.replies:
            try:
                yield open_reply(Secret(window), reply)
            except EnvelopeError:
                continue

    def _open(self, key: SealingPrivateKey) -> Iterator[bytes]:
        for envelope in self._recording.envelopes:
            for origin in self._recipients:
                try:
                    yield open_envelope(envelope, origin, key)
                except CryptoError:
                    continue

    def _keys(self, disk: Disk, passphrase: bytes) -> set[bytes]:
        """Every key that the keystore gives, and those that come from its chain."""
        found: list[bytes] = []
        for data in disk.files.values():
            try:
                entries = unlock_keystore(data, Secret(passphrase))
            except KeystoreError:
                continue
            for value in entries.values():
                found += [value[:KEY_BYTES], value[-KEY_BYTES:]]
            chain = WrappingChain.parse(entries["sealing-chain"])
            found += [chain.wrapping_key(chain.epoch + ahead).reveal() for ahead in range(_EPOCHS_AHEAD)]
        return set(found)

    def seeds(self, disk: Disk, passphrase: bytes) -> Iterator[SealingPrivateKey]:
        """Sealing keys that lie in any file, wrapped under any key of the keystore."""
        keys = [MessageKey(key) for key in self._keys(disk, passphrase)]
        places = [context("sealing-seed", key_id) for key_id in self._wanted]
        for window in disk.windows(WRAPPED_BYTES):
            for key in keys:
                for place in places:
                    try:
                        yield SealingPrivateKey(Secret(open_at_rest(key, place, window)))
                    except RestError:
                        continue
