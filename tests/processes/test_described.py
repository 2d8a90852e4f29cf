"""A public program that reads the APIs' descriptions asks a running node all that they allow, and what they do not.

No answer may be a failure of the server, or have a status, a type, headers or a shape that is not described.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, introduce
from tests.processes.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DOCS = Path(__file__).parents[2] / "docs"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
#: They end what the others need.
NOT_ASKED = ("/v1/keys/rotate", "/v1/keys/revoke")


def ask(directory: Path, description: str, url: str, *options: str, examples: int, least: int) -> None:
    """Run schemathesis; what it found is the failure."""
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", str(DOCS / description), "--url", url),
        *("--checks", ",".join(CHECKS), "--max-examples", str(examples), "--mode", "all", "--no-color"),
        *("--phases", "examples,coverage,fuzzing", "--seed", "1", "--workers", "1", "--request-timeout", "70"),
        *("--suppress-health-check", "all", *options),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    counted = re.search(r"([0-9]+) generated, ([0-9]+) passed", done.stdout)
    assert counted is not None, done.stdout
    assert int(counted[1]) == int(counted[2]) > least, done.stdout


@pytest.fixture
def hackney(town: Town) -> Borough:
    """Hackney, with the local API on TCP, and Enfield as its peer."""
    made, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    made.configure("local", address=f"127.0.0.1:{free_port()}")
    made.start()
    enfield.start()
    introduce(made, enfield)
    return made


def test_the_local_api_answers_as_it_is_described(hackney: Borough, tmp_path: Path) -> None:
    token = hackney.ask("token", "new", "schemathesis")["token"]
    address = hackney.setting("local", "address")
    skipped = [option for path in NOT_ASKED for option in ("--exclude-path", path)]
    ask(
        tmp_path,
        "openapi.json",
        f"http://{address}",
        "--header",
        f"Authorization: Bearer {token}",
        *skipped,
        examples=15,
        least=800,
    )
    assert "request failed" not in hackney.log.read_text()
    assert hackney.answers()


def test_the_api_for_peers_answers_as_it_is_described(hackney: Borough, tmp_path: Path) -> None:
    ask(tmp_path, "openapi-peers.json", f"http://127.0.0.1:{hackney.port}", examples=60, least=200)
    assert "request failed" not in hackney.log.read_text()
    assert hackney.answers()


def test_the_api_for_agencies_answers_as_it_is_described(hackney: Borough, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    hackney.stop()
    hackney.configure("agencies", address=url.removeprefix("http://"), url=url)
    hackney.start()
    token = hackney.ask("agency", "add", "housing", "--pull")["token"]
    # The long poll would wait for as long as it was asked to; tests/node/test_openapi.py holds its answers.
    skipped = ("--exclude-path", "/v1/agency/sections")
    header = f"Authorization: Bearer {token}"
    ask(tmp_path, "openapi-agencies.json", url, "--header", header, *skipped, examples=15, least=50)
    assert "request failed" not in hackney.log.read_text()
    assert hackney.answers()
