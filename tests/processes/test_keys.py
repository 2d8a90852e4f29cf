"""An admin rotates keys and takes an identity back, with real nodes and the command line."""

import json
import shutil
import stat

import pytest

from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, example, exchange, introduce, until
from tests.processes.terminal import terminal


@pytest.mark.slow
def test_an_admin_rotates_the_keys_and_every_receipt_still_proves_itself(town: Town) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    message = hackney.send(example("case-study-j"), ENFIELD)
    hackney.status(message, "received", 30)
    old_card, new_card, receipts = (town.root / name for name in ("old.card", "new.card", "receipts.json"))
    old = enfield.ask("card", "export", old_card)["fingerprint"]

    rotated = enfield.ask("keys", "rotate", "--yes", "--revocation", town.root / "next.json")

    assert rotated["old_fingerprint"] == old != rotated["fingerprint"]
    assert stat.S_IMODE((town.root / "next.json").stat().st_mode) == 0o600
    until(
        "Hackney follows Enfield",
        lambda: hackney.ask("peer", "show", enfield.origin)["fingerprint"] == rotated["fingerprint"],
    )
    assert enfield.ask("card", "export", new_card)["fingerprint"] == rotated["fingerprint"]
    hackney.ask("receipt", "export", message, receipts)
    for card in (old_card, new_card):
        checked = exchange("verify", receipts, "--card", card, "--json")
        assert checked.code == 0, checked
        assert checked.document["ok"] is True
    # Without what joins the two, the new card proves nothing of the old keys.
    alone = json.loads(new_card.read_text())
    del alone["rotations"]
    new_card.write_text(json.dumps(alone))
    document = json.loads(receipts.read_text())
    del document["card"]["rotations"]
    receipts.write_text(json.dumps(document))
    assert exchange("verify", receipts, "--card", new_card).code == 4
    before = receipts.read_bytes()
    for words in (("receipt", "export", message, receipts), ("card", "export", receipts)):
        refused = hackney.cli(*words)
        assert (refused.code, "is there already; nothing was written" in refused.stderr) == (2, True)
    assert receipts.read_bytes() == before
    again = hackney.send(example("case-study-j"), ENFIELD)
    hackney.status(again, "received", 30)
    # The node starts again with the new keys.
    enfield.stop()
    enfield.start()
    assert enfield.ask("card", "show")["fingerprint"] == rotated["fingerprint"]


def test_a_file_that_is_there_already_is_not_written_over_and_nothing_is_rotated(town: Town) -> None:
    hackney = town.borough("hackney", HACKNEY).start()
    before = hackney.ask("card", "show")["fingerprint"]
    there = town.root / "there.json"
    there.write_text("kept")

    refused = hackney.cli("keys", "rotate", "--yes", "--revocation", there)

    assert refused.code == 2
    assert "nothing was changed" in refused.one_line_error()
    assert there.read_text() == "kept"
    assert hackney.ask("card", "show")["fingerprint"] == before


def test_a_rotation_says_what_follows_and_asks_and_no_answer_is_taken_from_before(town: Town) -> None:
    hackney = town.borough("hackney", HACKNEY).start()
    before = hackney.ask("card", "show")["fingerprint"]
    next_one = town.root / "next.json"
    unasked = hackney.cli("keys", "rotate", "--revocation", next_one)
    assert (unasked.code, "--yes" in unasked.stderr) == (2, True)
    with terminal("keys", "rotate", "--revocation", next_one, config=hackney.config) as screen:
        screen.types("y")
        screen.sees("Backups of the keys that were made before, and open invitations, are worth nothing any more")
        screen.sees(r"Is that what you want\? \[y/N\]")
        screen.types("n")
        assert screen.ends() == 1, screen.shown
    assert hackney.ask("card", "show")["fingerprint"] == before
    assert not next_one.exists()


def test_a_borough_whose_machine_is_lost_takes_its_identity_back_with_the_file_kept_offline(town: Town) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)
    offline = town.root / "kept-offline.json"
    shutil.move(hackney.directory / "revocation.json", offline)
    hackney.kill()
    shutil.rmtree(hackney.directory)

    told = exchange("keys", "revoke", offline, "--peer", f"http://127.0.0.1:{enfield.port}", "--yes", "--json")

    assert told.code == 0, told
    assert told.document["origin"] == hackney.origin
    assert [peer["told"] for peer in told.document["peers"]] == [True]
    assert enfield.ask("peer", "show", hackney.origin)["trust"] == "revoked"
    assert [alarm["kind"] for alarm in enfield.ask("alarms")["items"]] == ["revoked"]
    assert enfield.cli("send", town.root / "form.json", "--to", HACKNEY).code == 2
    nobody = exchange("keys", "revoke", offline, "--peer", "http://127.0.0.1:9", "--yes", "--json")
    assert nobody.code == 75
    assert nobody.document["peers"][0]["told"] is False


def test_a_running_node_tells_all_its_peers_that_it_is_revoked(town: Town) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()
    introduce(hackney, enfield)

    told = hackney.ask("keys", "revoke", hackney.directory / "revocation.json", "--yes")

    assert told["peers"] == [{"origin": enfield.origin, "told": True, "reason": None}]
    assert enfield.ask("peer", "show", hackney.origin)["trust"] == "revoked"
    form = town.root / "form.json"
    form.write_bytes(example("case-study-j"))
    refused = hackney.cli("send", form, "--to", ENFIELD)
    assert refused.code == 4
    assert "revoked" in refused.one_line_error()
