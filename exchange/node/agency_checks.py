"""What is checked before an agency is registered, or reached in another way."""

import os
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from exchange.node.config import Configuration, is_proxy_url
from exchange.node.dropping import open_folder, why_not
from exchange.node.errors import RequestInvalid
from exchange.node.requests import check_certificate, check_file, check_networks
from exchange.node.ways import DROP, PULL, WEBHOOK, Folder

_OF_WEBHOOKS = ("networks", "ca_file", "timeout_s", "certificate", "proxy")


class Wanted(Protocol):
    """How an agency is to be reached."""

    @property
    def url(self) -> str | None: ...
    @property
    def pull(self) -> bool: ...
    @property
    def folder(self) -> Folder | None: ...
    @property
    def networks(self) -> tuple[str, ...]: ...
    @property
    def ca_file(self) -> str | None: ...
    @property
    def certificate(self) -> str | None: ...
    @property
    def proxy(self) -> str | None: ...


def check_way(wanted: Wanted, configuration: Configuration) -> str:
    """Check how a new agency is to be reached; return the way.

    Raises:
        RequestInvalid: it cannot be reached so.
    """
    if (wanted.url is not None) + wanted.pull + (wanted.folder is not None) != 1:
        raise RequestInvalid(
            "give one of `url`, `pull` and `folder`: where the agency gets webhooks, that it fetches, or its folder"
        )
    if wanted.url is not None:
        _check_url(wanted.url, has_networks=bool(wanted.networks))
        check_networks(wanted.networks)
        check_file(wanted.ca_file)
        check_endpoint(wanted.certificate, wanted.proxy, wanted.url)
        return WEBHOOK
    way = PULL if wanted.folder is None else DROP
    refuse_settings(way, {name: getattr(wanted, name) for name in _OF_WEBHOOKS})
    if wanted.folder is not None:
        _check_folder(wanted.folder, configuration)
    return way


def _check_url(text: str, *, has_networks: bool) -> None:
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        raise RequestInvalid("the URL cannot be read") from None
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or url.fragment:
        raise RequestInvalid("the URL must be http:// or https://, with a host and without a user or fragment")
    if url.scheme == "http" and not has_networks:
        raise RequestInvalid("http:// is only for networks that you name with --allow-network; use https://")


def check_endpoint(certificate: str | None, proxy: str | None, url: str) -> None:
    """Check how an agency's endpoint is to be reached.

    Raises:
        RequestInvalid: it cannot be reached so.
    """
    check_certificate(certificate)
    if proxy and not is_proxy_url(proxy):
        raise RequestInvalid("the proxy must be http://ADDRESS:PORT, without a name")
    if proxy and not url.startswith("https://"):
        raise RequestInvalid("a proxy would read what goes to http:// URLs; use https://")


def _check_folder(folder: Folder, configuration: Configuration) -> None:
    """Check that a folder can be used, and is not among what is the node's own."""
    path, store = Path(folder.directory), configuration.store_file
    if not path.is_absolute() or ".." in path.parts or "\0" in folder.directory:
        raise RequestInvalid("the folder must be an absolute path, without ..")
    for own in {configuration.directory, configuration.keystore_path.parent, *([store.parent] if store else [])}:
        real, place = own.resolve(), path.resolve()
        if place.is_relative_to(real) or real.is_relative_to(place):
            raise RequestInvalid("the folder must not be in the node's own directory, nor hold it")
    try:
        os.close(open_folder(folder))
    except OSError as error:
        raise RequestInvalid(f"the folder {why_not(error)}") from None
    if not os.access(folder.directory, os.W_OK | os.X_OK):
        raise RequestInvalid("the folder cannot be written by the node's account")


def refuse_settings(way: str, settings: dict[str, Any]) -> None:
    """Refuse settings that say nothing of an agency that gets no webhooks.

    Raises:
        RequestInvalid: there are some.
    """
    given = sorted(name for name, value in settings.items() if value)
    if way != WEBHOOK and given:
        raise RequestInvalid(f"{', '.join(given)}: only for agencies that get webhooks")
