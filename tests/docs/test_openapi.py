"""The descriptions of the APIs are of the program as it is: its routes, its codes, its words."""

import inspect
import re
import runpy
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from exchange.node.api_shapes import TrustText
from exchange.node.openapi import (
    AGENCIES,
    AGENCIES_OPEN,
    LOCAL,
    PEERS,
    agencies_document,
    local_document,
    peers_document,
)
from exchange.node.registration_api import RegistrationApi
from exchange.node.trust import Trust

ROOT = Path(__file__).parents[2]
NODE = ROOT / "exchange" / "node"
RENDER: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "render_openapi.py"))
#: What serves the listener for agencies.
FOR_AGENCIES = ("agency_api.py", "agency_attachments.py", "agency_sections_api.py")
ROUTE = re.compile(r'web\.(get|post|put|delete|patch)\(\s*"([^"]+)"')


def routes(path: Path) -> set[tuple[str, str]]:
    """The routes that a module of the program serves, as OpenAPI writes them."""
    return routes_in(path.read_text(encoding="utf-8"))


def routes_in(text: str) -> set[tuple[str, str]]:
    """The routes in a part of the program."""
    found = ROUTE.findall(text)
    return {(method, re.sub(r"\{([a-z]+):[^}]*\}", r"{\1}", place)) for method, place in found}


def test_the_files_are_current() -> None:
    for path, text in RENDER["files"]().items():
        assert path.read_text(encoding="utf-8") == text, "run: python docs/render_openapi.py"


def test_every_route_is_described_and_nothing_else() -> None:
    api = RegistrationApi
    shared = {NODE / "peer_api.py", NODE / "registration_api.py"}  # with the listeners that strangers reach
    for_agencies = {NODE / name for name in FOR_AGENCIES}
    shared |= for_agencies
    local = {route for path in NODE.glob("*.py") if path not in shared for route in routes(path)}
    local |= routes_in(inspect.getsource(api.local_routes))
    public = routes_in(inspect.getsource(api.public_routes)) | routes(NODE / "peer_api.py")
    assert routes(NODE / "registration_api.py") <= local | public
    assert len(local) > 30, "the program no longer says so in this way"
    assert {(one.method, one.path) for one in LOCAL} == local
    assert {(one.method, one.path) for one in PEERS} == public
    asked = {route for path in for_agencies for route in routes(path)}
    assert {(one.method, one.path) for one in (*AGENCIES, *AGENCIES_OPEN)} == asked


@pytest.mark.parametrize(
    "document", [local_document(), peers_document(), agencies_document()], ids=["local", "peers", "agencies"]
)
def test_a_description_can_be_followed(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    operations = [one for path in document["paths"].values() for one in path.values()]
    ids = [one["operationId"] for one in operations]
    assert len(set(ids)) == len(ids)
    assert all(one["summary"] and one["responses"] for one in operations)
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    refs = re.findall(r"'\$ref': '#/components/([a-z]+)/([^']+)'", str(document))
    assert refs
    for kind, name in refs:
        assert name in document["components"][kind], f"nothing is called {name}"
    assert r"\\Z" not in str(document), "an end of text that only Python knows"


def test_every_state_of_trust_is_described() -> None:
    assert set(get_args(TrustText)) == {trust.value for trust in Trust}
