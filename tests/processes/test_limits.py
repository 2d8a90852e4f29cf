"""A peer at its limit, as both boroughs see it on the command line."""

import pytest

from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, example, introduce, until

pytestmark = pytest.mark.slow


def test_both_boroughs_see_that_one_has_sent_enough_for_now(town: Town) -> None:
    hackney, enfield = town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD)
    enfield.configure("limits", peer_messages_per_hour=2)
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    sent = [hackney.send(example("case-study-j"), ENFIELD) for _ in range(3)]

    def said() -> str:
        found = [str(hackney.status(message_id)["last_error"]) for message_id in sent]
        return next((text for text in found if "429" in text), "")

    assert until("the sender is told", said) == f"{enfield.origin} answered 429: peer-limit"
    health = enfield.cli("health")
    assert f"{hackney.origin} is at a limit (peer-limit), last at 20" in health.stdout
    (peer,) = enfield.ask("health")["limits"]["peers"]
    assert (peer["origin"], peer["limit"]) == (hackney.origin, "peer-limit")
    assert hackney.ask("held", "list")["items"] == []
    enfield.stop()
    enfield.configure("limits", peer_mib_per_hour=64)
    text = enfield.config.read_text()
    enfield.config.write_text(text.replace("peer_messages_per_hour = 2", "peer_messages_per_hour = 200"))
    enfield.start()
    for message_id in sent:
        assert hackney.status(message_id, "received", 60)["reached"]
