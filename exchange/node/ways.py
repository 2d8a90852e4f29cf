"""The ways to an agency: the node posts webhooks to it, it fetches, or the node puts files into its folder."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from exchange.store.endpoints import EndpointRow

WEBHOOK: Final = "webhook"
PULL: Final = "pull"
DROP: Final = "drop"


class Folder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder for an agency's sections. Files are for the node's account, and for `group` where it is set; `shared`
    says that others may see into the folder."""

    directory: Annotated[str, Meta(min_length=1, max_length=1000)]
    group: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    shared: bool = False


def folder_of(endpoint: EndpointRow) -> Folder:
    """The folder of an agency that has one."""
    return msgspec.json.decode(endpoint.folder or "", type=Folder)
