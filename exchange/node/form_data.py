"""What a browser's form holds, as `multipart/form-data` (RFC 7578), byte for byte and in memory alone.

aiohttp's reader writes files to the disk; what is entered here may be of somebody, and must not be there.
"""

import re
from typing import Final

from exchange.node.errors import RequestInvalid

_MOST_PARTS: Final = 50
_TYPE: Final = re.compile(r"""(?i:multipart/form-data; *boundary=)"?([A-Za-z0-9'()+_,./:=?-]{1,70})"?""")


def parse_form(content_type: str, data: bytes) -> dict[str, bytes]:
    """The fields of a form; of two with one name, the first that is not empty.

    Raises:
        RequestInvalid: it is no form.
    """
    kind = _TYPE.fullmatch(content_type)
    if kind is None:
        raise RequestInvalid("the request is no form")
    fields: dict[str, bytes] = {}
    parts = (b"\r\n" + data).split(b"\r\n--" + kind[1].encode())
    if len(parts) < 2 or not parts[-1].startswith(b"--") or len(parts) > _MOST_PARTS:
        raise RequestInvalid("the form ends too early, or has too many fields")
    for part in parts[1:-1]:
        head, blank, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'(?m)^(?i:content-disposition: *form-data;).*?\bname="([a-z_-]{1,40})"', head)
        if not blank or name is None:
            raise RequestInvalid("a field of the form cannot be read")
        key = name[1].decode()
        fields[key] = fields.get(key) or value
    return fields
