"""The TLS of the listener for agencies: its certificate is taken from the files again when they are replaced."""

import asyncio
from typing import Final

from exchange.node.errors import CertificateUnusable
from exchange.node.rounds import go_round
from exchange.node.services import Services
from exchange.node.tls import (
    Door,
    ListenerCertificate,
    first_certificate,
    listener_certificate,
    listening_context,
    read_certificate_files,
)

_LOOK_EVERY_S: Final = 5.0
_DAY_MS: Final = 86_400_000


class AgencyDoor:
    """Keeps the listener's context as the certificate's files are; `door` is None where a proxy does TLS.

    Raises:
        ConfigurationInvalid: the files cannot be used.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._table = services.configuration.tables.agencies
        self._warned_at_ms: int | None = None
        self.serving = (
            first_certificate(services.configuration, "agencies", self._table) if self._table.address else None
        )
        self.door = None if self.serving is None else Door(listening_context(self.serving))

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the files until `stop`."""
        if self.door is not None:
            await go_round(self._services, self.look, asyncio.Event(), _LOOK_EVERY_S, stop)

    async def look(self) -> None:
        """Take a new certificate from the files; files that do not fit together change nothing."""
        services, serving = self._services, self.serving
        assert serving is not None  # noqa: S101 - `run` has seen it
        try:
            files = await asyncio.to_thread(read_certificate_files, services.configuration, self._table)
            found = listener_certificate(*files)
            if found.pem.reveal() != serving.pem.reveal() and found.not_after > services.now():
                self._take(found)
        except (OSError, CertificateUnusable) as error:
            services.log.warning("certificate not taken", reason=str(error))
        self._warn()

    def _take(self, found: ListenerCertificate) -> None:
        assert self.door is not None  # noqa: S101 - as above
        self.serving, self.door.current = found, listening_context(found)
        self._services.log.info("certificate renewed")

    def _warn(self) -> None:
        services, now_ms = self._services, self._services.now_ms()
        if self.serving is None or not self.serving.is_near_its_end(services.now()):
            return
        if self._warned_at_ms is None or not 0 <= now_ms - self._warned_at_ms < _DAY_MS:
            self._warned_at_ms = now_ms
            ends = f"{self.serving.not_after:%Y-%m-%d %H:%M} UTC"
            services.log.warning("certificate is near its end", reason=f"that for agencies ends at {ends}; renew it")
