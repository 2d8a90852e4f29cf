"""`exchange agency selftest` as people use it: the sample, and what came, from files and from standard input."""

import json
import subprocess
import sys

import pytest
from standardwebhooks import Webhook

from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD


@pytest.mark.slow
def test_a_technician_finds_out_why_a_receiver_refuses(town: Town) -> None:
    enfield = town.borough("enfield", ENFIELD).start()
    added = enfield.add_agency("housing", town.receiver())
    sample = enfield.ask("agency", "selftest", "housing")
    body = sample["body"].encode()
    Webhook(added["secret"]).verify(body, sample["headers"])
    shown = enfield.cli("agency", "selftest", added["id"]).stdout
    assert "The bytes that are signed" in shown
    assert "curl --include" in shown

    headers = "".join(f"{name}: {value}\n" for name, value in sample["headers"].items())
    here = town.root
    (here / "headers").write_text(headers)
    (here / "body").write_bytes(body)
    (here / "written-again").write_text(json.dumps(json.loads(body), indent=2))
    (here / "secret").write_text(f"{added['secret']}\n")
    (here / "request").write_bytes(b"POST /hook HTTP/1.1\r\n" + headers.replace("\n", "\r\n").encode() + b"\r\n" + body)

    given = ("agency", "selftest", "housing", "--headers", here / "headers")
    assert [one["code"] for one in enfield.ask(*given, "--body", here / "body")["findings"]] == ["right"]
    assert enfield.ask("agency", "selftest", "housing", "--request", here / "request")["ok"]
    again = enfield.cli(*given, "--body", here / "written-again")
    assert again.code == 5
    assert "wrong: The JSON was parsed and written again" in again.stdout
    secret = enfield.cli(*given, "--body", here / "body", "--secret-file", here / "secret", "--json")
    assert secret.code == 5
    assert [one["code"] for one in secret.document["findings"]] == ["secret-spaces"]
    assert enfield.cli("agency", "selftest", "housing", "--clock", "1").code == 2
    assert enfield.cli(*given).code == 2
    assert enfield.cli("agency", "selftest", "nobody").code == 3

    command = [sys.executable, "-m", "exchange.cli.main", "agency", "selftest", "housing", "--json"]
    command += ["--headers", here / "headers", "--body", "-", "--config", enfield.config]
    done = subprocess.run(command, input=body, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["ok"]
