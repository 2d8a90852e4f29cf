"""Routing by the command line: agencies with labels, rules that are tried before they are used, and what waits."""

import pytest

from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, example, introduce, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

RULES = '[[routing.rule]]\nsections = ["housing"]\nmoves = ["planned"]\nto = ["housing/south"]\n'


def test_rules_are_tried_then_used_and_what_waits_is_routed_again(town: Town) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    receiver = town.receiver()
    introduce(hackney, enfield)
    for name in ("housing", "housing/south"):
        network = ("--allow-network", "127.0.0.0/8")
        added = enfield.ask("agency", "add", name, "--url", receiver.url(name), *network)
        assert (added["kind"], added["name"]) == ("housing", name)
        receiver.know(name, added["secret"])
    assert "housing/South" not in enfield.cli("agency", "add", "housing/South", "--url", "https://a.example").stdout
    first = hackney.send(example("case-study-j"), ENFIELD)
    until("housing has it", lambda: len(receiver.accepted("housing", first)) > 1)
    assert receiver.accepted("housing/south") == []

    rules = enfield.directory / "new.toml"
    rules.write_text(RULES)
    tried = enfield.ask("route", "dry-run", "--rules", rules)
    assert {row["agency"]: row["sections"] - row["now"] for row in tried["agencies"]} == {
        "housing": -2,
        "housing/south": 2,
    }
    assert tried["changes"] == [{"now": "housing", "then": "housing/south", "sections": 2}]
    shown = enfield.cli("route", "dry-run", "--rules", rules)
    assert "housing/south" in shown.stdout
    rules.write_text(RULES.replace("housing/south", "hosing/south"))
    wrong = enfield.cli("route", "dry-run", "--rules", rules)
    assert (wrong.code, "did you mean 'housing'?" in wrong.stderr) == (2, True)
    assert enfield.ask("route", "show")["rules"] == []

    enfield.stop()
    usual = enfield.config.read_text()
    enfield.config.write_text(usual + RULES.replace("housing/south", "hosing/south"))
    assert "routing.rule[0].to: there is no agency kind 'hosing'" in enfield.cli("run").one_line_error()
    enfield.config.write_text(usual + RULES)
    enfield.start()
    assert enfield.ask("route", "show")["rules"] == [
        {"to": ["housing/south"], "sections": ["housing"], "moves": ["planned"]}
    ]
    assert "housing/south" in enfield.cli("route", "show").stdout
    second = hackney.send(example("case-study-j"), ENFIELD)
    until("the other has its part", lambda: len(receiver.accepted("housing/south", second)) == 2)
    assert {request.event["data"]["section"] for request in receiver.accepted("housing/south")} == {
        "housing",
        "housing.address",
    }
    assert enfield.ask("route", "again", "housing/south") == {"agency": "housing/south", "deliveries": 0}
    given = {row["given_to"] for row in enfield.status(second)["sections"] if row["section"].startswith("housing")}
    assert given == {"housing/south"} or given == {"housing/south", None}
