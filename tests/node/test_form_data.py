"""Forms of browsers, read byte for byte."""

import asyncio

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.node.errors import RequestInvalid
from exchange.node.form_data import parse_form

#: What Chromium sends, with a file that was not chosen.
CHROMIUM = (
    b'------WebKitFormBoundaryx\r\nContent-Disposition: form-data; name="headers"\r\n\r\nwebhook-id: evt_1\r\nb: c\r\n'
    b'------WebKitFormBoundaryx\r\nContent-Disposition: form-data; name="file"; filename=""\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n\r\n"
    b'------WebKitFormBoundaryx\r\nContent-Disposition: form-data; name="body"\r\n\r\n{}\r\n\r\n'
    b"------WebKitFormBoundaryx--\r\n"
)
TYPE = "multipart/form-data; boundary=----WebKitFormBoundaryx"


def test_a_browsers_form_is_read() -> None:
    assert parse_form(TYPE, CHROMIUM) == {"headers": b"webhook-id: evt_1\r\nb: c", "file": b"", "body": b"{}\r\n"}


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        (TYPE, CHROMIUM[:-10]),
        (TYPE, b""),
        (TYPE, b"------WebKitFormBoundaryx--"[:-2]),
        ("multipart/form-data", CHROMIUM),
        ('multipart/form-data; boundary="\n"', CHROMIUM),
        ("application/x-www-form-urlencoded", b"headers=a"),
        ("", CHROMIUM),
        (TYPE, CHROMIUM.replace(b'name="body"', b'name="B"')),
        (TYPE, CHROMIUM.replace(b"\r\n\r\n{}", b"\r\n{}").replace(b"{}\r\n", b"{}")),
    ],
)
def test_what_is_no_form_is_refused(content_type: str, data: bytes) -> None:
    with pytest.raises(RequestInvalid):
        parse_form(content_type, data)


class _Written(aiohttp.abc.AbstractStreamWriter):
    """What a public writer of forms writes."""

    def __init__(self) -> None:
        self.data = bytearray()

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self.data += chunk

    async def write_eof(self, chunk: bytes = b"") -> None: ...
    async def drain(self) -> None: ...
    def enable_compression(self, *_: object, **__: object) -> None: ...
    def enable_chunking(self) -> None: ...
    async def write_headers(self, *_: object) -> None: ...


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(max_size=200), min_size=1, max_size=8))
def test_what_a_public_writer_wrote_is_read_byte_for_byte(fields: dict[str, bytes]) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value, filename="body.json", content_type="application/octet-stream")
    payload, written = form(), _Written()
    asyncio.run(payload.write(written))
    assert parse_form(payload.headers["content-type"], bytes(written.data)) == fields


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for form in (data, b"--x\r\n" + data + b"\r\n--x--"):
        try:
            parse_form("multipart/form-data; boundary=x", form)
        except RequestInvalid:
            continue
