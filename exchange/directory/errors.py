"""What can go wrong for the body that runs a directory."""

from typing import ClassVar

from exchange.errors import ExchangeError


class DirectoryError(ExchangeError):
    """What was asked of the directory cannot be done; nothing was changed."""

    code: ClassVar[str] = "directory"


class SignaturesMissing(DirectoryError):
    """Fewer keyholders have signed than must."""

    code = "signatures-missing"


class DirectoryUnreadable(DirectoryError):
    """A file of the directory is missing, or is not what it should be."""

    code = "directory-unreadable"
    hint = "Take the working directory from the copy that was published last."
