"""The protocol page says what the code does: the fields of every struct, the rungs, the codes, the example."""

import re
import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exchange.crypto.statement import encode_statement, leaf_hash
from exchange.node.acknowledged import UNSIGNED
from exchange.schema.agency_keys import Possession
from exchange.schema.attachments import Attachment
from exchange.schema.identity import Rotation
from exchange.schema.registration import Registration
from exchange.schema.rejoining import Ask
from exchange.schema.wire import Placement, Receipt, Rung, Wire, encode_wire

DOCS = Path(__file__).parents[2] / "docs"
NODE = Path(__file__).parents[2] / "exchange" / "node"
PAGE = (DOCS / "protocol.md").read_text(encoding="utf-8")
SCRIPT: dict[str, Any] = runpy.run_path(str(DOCS / "render_protocol.py"))


@pytest.mark.parametrize("struct", SCRIPT["STRUCTS"], ids=lambda struct: struct.__name__)
def test_a_struct_stands_on_the_page_with_its_fields_types_and_order(struct: type[Wire]) -> None:
    assert SCRIPT["fields_on_page"](PAGE, struct) == SCRIPT["fields_of"](struct), "run: python docs/render_protocol.py"


def test_no_struct_that_a_node_sends_is_missing() -> None:
    modules = {
        Attachment.__module__,
        Wire.__module__,
        Rotation.__module__,
        Registration.__module__,
        Ask.__module__,
        Possession.__module__,
    }
    assert set(SCRIPT["STRUCTS"]) == {kind for kind in Wire.__subclasses__() if kind.__module__ in modules}


def test_the_page_names_every_rung_in_order() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("| rung | `str`"))
    assert re.findall("`([a-z]+)`", row)[1:] == [rung.value for rung in Rung]


def test_the_receipt_in_the_example_has_these_bytes() -> None:
    receipt = Receipt(
        version=1,
        message_id="0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10",
        leaf_hash=bytes(range(32)),
        rung=Rung.ROUTED,
        origin="exchange.enfield.example",
        recipient="exchange.hackney.example",
        at=datetime(2026, 11, 24, 9, 30, 15, 250_000, UTC),
        placements=(Placement(section="housing", agency="housing"),),
    )
    body = encode_wire(receipt)
    shown = re.search(r"(?m)(?:^    [0-9a-f]{2,96}\n)+", PAGE)
    assert shown is not None
    assert bytes.fromhex(shown[0]) == body
    assert leaf_hash(encode_statement("receipt", body)).hex() in PAGE
    assert f"`exchange/1 7 receipt {len(body)} `" in PAGE


def test_the_page_names_every_code_by_which_an_item_is_refused() -> None:
    text = "".join(
        (NODE / name).read_text(encoding="utf-8")
        for name in (
            "inbound.py",
            "arrivals.py",
            "peer_receipts.py",
            "acknowledged.py",
            "orders_taken.py",
            "orders_answered.py",
            "attachment_arrivals.py",
            "attachment_reports.py",
        )
    )
    codes = set(re.findall(r'ItemRefused\(\s*"([a-z-]+)"', text)) | {UNSIGNED}
    assert codes > {"sender-wrong", "receipt-hash"}, "the code no longer says so in this way"
    assert codes | {"conflict", "commitment-wrong", "parcel-wrong", "wire-invalid"} <= set(
        re.findall("`([a-z-]+)`", PAGE)
    )


def test_the_page_names_every_code_and_path_of_the_listener() -> None:
    registering = (NODE / "registration_api.py").read_text(encoding="utf-8")
    before, _, after = registering.partition("def local_routes")
    text = (NODE / "peer_api.py").read_text(encoding="utf-8") + before + after.partition("# Strangers")[2]
    codes = set(re.findall(r'problem\(\d+, "([a-z-]+)"', text))
    assert codes > {"unacceptable", "try-later"}, "the code no longer says so in this way"
    assert codes <= set(re.findall("`([a-z-]+)`", PAGE))
    paths = re.findall(r'web\.(get|post)\("([^"]+)"', text)
    assert paths
    for method, path in paths:
        assert f"`{method.upper()} {path}" in PAGE
