"""A man in the middle plays each way of registering, and fails: nobody is verified who is not who they say.

He owns the network: each borough's admin reaches the other borough at a URL of his.
"""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exchange.cli.client import CommandFailed
from exchange.crypto.envelope import open_reply
from exchange.crypto.errors import EnvelopeError
from exchange.crypto.pairing import word_numbers
from exchange.crypto.secret import Secret
from exchange.schema.registration import pairing_offer_decoder, pairing_reveal_decoder
from exchange.schema.wire import decode_wire
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example, until
from tests.processes.middle import REFUSED, Face, Guess, Middle, answer_with, call, nonce_in

pytestmark = pytest.mark.slow

FORM = example("case-study-j")


def through(borough: Borough, face: Face) -> Borough:
    """Let the world reach a borough through a face; the node itself listens where it did."""
    text = borough.config.read_text()
    borough.config.write_text(text.replace(f'url = "http://127.0.0.1:{borough.port}"', f'url = "{face.url}"'))
    return borough


@pytest.fixture
def middle(town: Town) -> Iterator[Middle]:
    """Hackney and Enfield run, and reach one another through him alone."""
    made = Middle(town.borough("hackney", HACKNEY), town.borough("enfield", ENFIELD))
    for face in (made.hackney, made.enfield):
        through(made.listen(face).real, face).start()
    yield made
    made.close()


@pytest.fixture
def hackney(middle: Middle) -> Borough:
    return middle.hackney.real


@pytest.fixture
def enfield(middle: Middle) -> Borough:
    return middle.enfield.real


def nobody_is_verified(middle: Middle) -> None:
    """Neither node trusts anybody, sends anything or hears what he sends in a borough's name."""
    for here, false in ((middle.hackney, middle.enfield), (middle.enfield, middle.hackney)):
        for row in here.real.api("GET", "/v1/peers")["items"]:
            assert row["trust"] != "verified", row
            assert row["verified_at"] is None
        with pytest.raises(CommandFailed) as refused:
            here.real.send(form_from(here.real), false.real.area)
        assert refused.value.code in ("peer-unknown", "peer-untrusted")
        greeting = false.identity.envelope(here.true_card(), [false.card])
        assert call(here.behind, "POST", "/v1/envelopes", greeting, "application/vnd.exchange.envelope")[0] == 403
    for face in (middle.hackney, middle.enfield):
        assert "/v1/envelopes" not in [path for path, _ in face.heard]


def form_from(borough: Borough) -> bytes:
    """A form that a borough would send the other."""
    document = json.loads(FORM)
    if borough.area == ENFIELD:
        document["referral"] |= {"from_area": ENFIELD, "to_area": HACKNEY}
        document["housing"] |= {"safe_areas": [HACKNEY], "unsafe_areas": [ENFIELD]}
    return json.dumps(document).encode()


# By telephone and number


def test_who_hands_each_admin_a_card_of_his_own_gives_them_two_numbers(middle: Middle, tmp_path: Path) -> None:
    numbers = []
    for here, false in ((middle.hackney, middle.enfield), (middle.enfield, middle.hackney)):
        card = tmp_path / f"for-{here.real.directory.name}.card"
        card.write_bytes(false.card_file())
        true = false.real.ask("card", "show")["fingerprint"]
        refused = here.real.cli("peer", "add", card, "--fingerprint", true, "--json")
        assert (refused.code, refused.document["code"]) == (4, "fingerprint-mismatch")
        assert here.real.ask("peer", "list")["items"] == []
        assert here.real.ask("peer", "import", card)["trust"] == "unverified"
        numbers.append(here.real.ask("peer", "number", false.real.origin)["number"])
    assert numbers[0] != numbers[1]
    assert not set(numbers[0]) & set(numbers[1]), "each half is of other keys"
    for here, false, heard in (
        (middle.hackney, middle.enfield, numbers[1]),
        (middle.enfield, middle.hackney, numbers[0]),
    ):
        refused = here.real.cli("peer", "verify", false.real.origin, "--number", " ".join(heard), "--json")
        assert (refused.code, refused.document["code"]) == (4, "fingerprint-mismatch")
    nobody_is_verified(middle)


# By invitation


def test_who_serves_a_card_of_his_own_learns_nothing_of_the_invitation(
    middle: Middle, hackney: Borough, enfield: Borough
) -> None:
    made = hackney.ask("peer", "invite")
    refused = enfield.cli("peer", "accept", made["link"], "--json")
    assert (refused.code, refused.document["code"]) == (4, "fingerprint-mismatch")
    assert middle.hackney.heard == []
    assert enfield.ask("peer", "list")["items"] == []
    (row,) = hackney.ask("peer", "invitations")["items"]
    assert row["used_by"] is None
    nobody_is_verified(middle)


def test_who_passes_on_the_true_card_cannot_put_himself_into_the_registration(
    middle: Middle, hackney: Borough, enfield: Borough
) -> None:
    made = hackney.ask("peer", "invite")
    face = middle.hackney
    del face.play["/v1/card"]
    seen: list[int] = []

    def substitute(path: str, body: bytes) -> tuple[int, bytes]:
        changed = [body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :] for at in (0, 20, 36, 1200, len(body) - 1)]
        mine = [
            middle.enfield.registration(made["id"], secret, face.true_card())
            for secret in (bytes(32), os.urandom(32), bytes.fromhex(made["id"]) * 2)
        ]
        # To another node than the one it is sealed to it is nothing, and neither is half of it.
        seen.extend(face.post(path, other)[0] for other in (*changed, *mine, body[:-1], body + b"\0", body[:9000]))
        seen.append(middle.enfield.post(path, body)[0])
        return REFUSED

    face.play["/v1/registrations"] = substitute
    refused = enfield.cli("peer", "accept", made["link"], "--json")
    assert (refused.code, refused.document["code"]) == (4, "unacceptable")
    assert seen == [403] * 12
    assert hackney.api("GET", "/v1/health")["counters"]["registrations_refused"] == 11
    assert "the secret of the invitation is wrong" in hackney.log.read_text()
    nobody_is_verified(middle)
    face.play.pop("/v1/registrations")
    assert enfield.ask("peer", "accept", made["link"])["verified_there"], "what he tried has not spent it"


def test_who_answers_in_the_inviters_place_is_not_believed(middle: Middle, hackney: Borough, enfield: Borough) -> None:
    made = hackney.ask("peer", "invite")
    del middle.hackney.play["/v1/card"]
    for answer in (
        (200, b""),
        (200, bytes(8256)),
        (200, b"x" * 65_536),
        (500, b"{}"),
        (302, b""),
        (404, b"<html>"),
    ):
        middle.hackney.play["/v1/registrations"] = lambda _, __, answer=answer: answer
        with pytest.raises(CommandFailed) as refused:
            enfield.api("POST", "/v1/invitations/accept", {"invitation": made["link"]})
        assert refused.value.exit_code == 75, answer
    nobody_is_verified(middle)


def test_who_loses_the_answer_and_replays_the_registration_gains_nothing(
    middle: Middle, hackney: Borough, enfield: Borough
) -> None:
    made = hackney.ask("peer", "invite")
    face = middle.hackney
    for played in (face.play, middle.enfield.play):
        del played["/v1/card"]
    lost: list[tuple[int, bytes]] = []

    def lose(path: str, body: bytes) -> tuple[int, bytes]:
        lost.append(face.post(path, body))
        return 502, b""

    face.play["/v1/registrations"] = lose
    assert enfield.cli("peer", "accept", made["link"], "--json").code == 75
    assert enfield.ask("peer", "list")["items"] == []
    assert lost[0][0] == 200
    with pytest.raises(EnvelopeError):
        open_reply(Secret.random(), lost[0][1])
    truth = enfield.ask("card", "show")["fingerprint"]
    registered = hackney.ask("peer", "show", enfield.origin)
    assert (registered["trust"], registered["fingerprint"]) == ("verified", truth)
    recorded = next(body for path, body in face.heard if path == "/v1/registrations")
    again = face.post("/v1/registrations", recorded)
    assert again[0] == 200
    assert again[1] != lost[0][1]
    assert middle.enfield.post("/v1/registrations", recorded)[0] == 403
    after = hackney.ask("peer", "show", enfield.origin)
    assert after["verifications"] == registered["verifications"], "a replay confirms nothing"
    hackney.ask("peer", "suspend", enfield.origin)
    assert face.post("/v1/registrations", recorded)[0] == 403
    assert hackney.ask("peer", "show", enfield.origin)["trust"] == "suspended", "a replay lifts nothing"


# By pairing


def start(borough: Borough, url: str) -> str:
    """An admin starts a pairing; its id."""
    return str(borough.api("POST", "/v1/pairings", {"url": url})["id"])


def state(borough: Borough) -> Any:
    """The pairing that a borough's admin sees."""
    return borough.api("GET", "/v1/pairings")["items"][0]


def has_words(borough: Borough) -> list[str]:
    found = until("the words are there", lambda: state(borough)["words"])
    return [str(word) for word in found]


def both_admins_say_no(middle: Middle) -> None:
    """Each gives what the other read out; it differs, and is an alarm at both ends."""
    words = {face: has_words(face.real) for face in (middle.hackney, middle.enfield)}
    for here, there in ((middle.hackney, middle.enfield), (middle.enfield, middle.hackney)):
        assert words[here] != words[there]
        spoken = " ".join(words[there])
        refused = here.real.cli("peer", "pair", state(here.real)["url"], "--words", spoken, "--json")
        assert (refused.code, refused.document["code"]) == (4, "fingerprint-mismatch")
        (alarm,) = here.real.ask("alarms")["items"]
        assert alarm["kind"] == "pairing-words-differ"
        assert here.real.ask("peer", "list")["items"] == []
    nobody_is_verified(middle)


def test_who_runs_a_pairing_with_each_side_makes_two_sets_of_words(
    middle: Middle, hackney: Borough, enfield: Borough
) -> None:
    """Enfield sorts first: towards Enfield he responds, towards Hackney he begins, and he knows all that he can."""
    guess = Guess(middle.enfield, middle.hackney, os.urandom(32))
    told: dict[str, bytes] = {}

    def respond(_: str, body: bytes) -> tuple[int, bytes]:
        told["commitment"] = decode_wire(pairing_offer_decoder, body).commitment
        told["hackney"] = told.get("hackney") or nonce_in(guess.offer())
        # He knows the words at Hackney now, and must answer Enfield before he knows Enfield's nonce.
        return answer_with(told["hackney"])

    def reveal(_: str, body: bytes) -> tuple[int, bytes]:
        told["enfield"] = decode_wire(pairing_reveal_decoder, body).nonce
        assert guess.reveal()[0] == 200
        return 200, b""

    middle.hackney.play |= {"/v1/pairings": respond, "/v1/pairings/reveal": reveal}
    start(hackney, middle.enfield.url)
    start(enfield, middle.hackney.url)
    until("both have words", lambda: state(hackney)["words"] and state(enfield)["words"])
    mine = middle.enfield.identity.fingerprint
    truth = hackney.ask("card", "show")["fingerprint"]
    seen = word_numbers(mine, truth, guess.commitment, guess.nonce, told["hackney"])
    assert len(seen) == 4, "he knows what Hackney sees, and cannot change it any more"
    both_admins_say_no(middle)


def test_who_first_hears_the_whole_of_one_side_has_still_one_guess_at_the_other(
    middle: Middle, hackney: Borough, enfield: Borough
) -> None:
    told: dict[str, bytes] = {}

    def reveal(_: str, body: bytes) -> tuple[int, bytes]:
        told["nonce"] = decode_wire(pairing_reveal_decoder, body).nonce
        return 200, b""

    middle.hackney.play |= {"/v1/pairings": lambda _, __: answer_with(bytes(32)), "/v1/pairings/reveal": reveal}
    start(enfield, middle.hackney.url)
    has_words(enfield)
    start(hackney, middle.enfield.url)
    guess = Guess(middle.enfield, middle.hackney, told["nonce"])
    nonce_in(guess.offer())
    # He would like to choose another nonce now that he knows Hackney's.
    other = os.urandom(32)
    assert guess.reveal(nonce=other)[0] == 403
    failed = state(hackney)
    assert (failed["state"], failed["words"]) == ("failed", None)
    assert "stand between" in failed["reason"]
    # The window is closed to the right nonce too, and to another offer.
    assert guess.reveal()[0] == 403
    assert guess.offer()[0] == 403
    assert Guess(middle.enfield, middle.hackney, other).offer()[0] == 403
    nobody_is_verified(middle)


def test_who_offers_a_second_time_is_refused_and_the_admin_is_told(middle: Middle, hackney: Borough) -> None:
    start(hackney, middle.enfield.url)
    first, second = (Guess(middle.enfield, middle.hackney, os.urandom(32)) for _ in range(2))
    nonce = nonce_in(first.offer())
    assert nonce_in(first.offer()) == nonce, "the same offer hears the same, and no more"
    assert second.offer()[0] == 403
    assert state(hackney)["state"] == "failed"
    assert "a second offer came" in state(hackney)["reason"]
    assert first.reveal()[0] == 403
    nobody_is_verified(middle)


def test_once_the_words_are_shown_another_offer_changes_nothing(middle: Middle, hackney: Borough) -> None:
    start(hackney, middle.enfield.url)
    first, second = (Guess(middle.enfield, middle.hackney, os.urandom(32)) for _ in range(2))
    nonce_in(first.offer())
    assert first.reveal()[0] == 200
    words = has_words(hackney)
    assert second.offer()[0] == 403
    assert first.reveal(nonce=os.urandom(32))[0] == 403
    assert first.reveal()[0] == 200
    assert has_words(hackney) == words


def test_many_offers_at_once_are_one_guess(middle: Middle, hackney: Borough) -> None:
    start(hackney, middle.enfield.url)
    answers: list[int] = []

    def offer() -> None:
        answers.append(Guess(middle.enfield, middle.hackney, os.urandom(32)).offer()[0])

    threads = [threading.Thread(target=offer) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, *[403] * 19]


def test_who_passes_on_the_other_sides_commitment_cannot_open_it_as_his_own(
    middle: Middle, hackney: Borough, enfield: Borough
) -> None:
    guess = Guess(middle.enfield, middle.hackney, b"")
    answered: list[int] = []

    def respond(_: str, body: bytes) -> tuple[int, bytes]:
        guess.commitment = decode_wire(pairing_offer_decoder, body).commitment
        # As Enfield itself it is refused: Hackney's admin was shown another identity.
        answered.append(middle.hackney.post("/v1/pairings", body)[0])
        return answer_with(nonce_in(guess.offer()))

    def reveal(_: str, body: bytes) -> tuple[int, bytes]:
        answered.append(guess.reveal(nonce=decode_wire(pairing_reveal_decoder, body).nonce)[0])
        return 200, b""

    middle.hackney.play |= {"/v1/pairings": respond, "/v1/pairings/reveal": reveal}
    start(hackney, middle.enfield.url)
    start(enfield, middle.hackney.url)
    has_words(enfield)
    assert answered == [403, 403]
    assert state(hackney)["state"] == "failed"
    nobody_is_verified(middle)


def test_what_is_reflected_to_its_sender_is_refused(middle: Middle, enfield: Borough) -> None:
    answered: list[int] = []

    def reflect(path: str, body: bytes) -> tuple[int, bytes]:
        answered.append(middle.enfield.post(path, body)[0])
        return REFUSED

    middle.hackney.play["/v1/pairings"] = reflect
    started = start(enfield, middle.hackney.url)
    until("it was tried again and again", lambda: len(answered) > 1)
    assert set(answered) == {403}
    assert state(enfield)["state"] == "waiting"
    enfield.api("DELETE", f"/v1/pairings/{started}")
    middle.hackney.play["/v1/card"] = lambda _, __: call(middle.enfield.behind, "GET", "/v1/card")
    mirrored = enfield.cli("peer", "pair", middle.hackney.url, "--no-ask", "--json")
    assert (mirrored.code, "own card" in mirrored.document["message"]) == (2, True)
    nobody_is_verified(middle)


def test_who_begins_with_both_sides_under_a_name_that_sorts_first_makes_two_sets_of_words(
    middle: Middle, hackney: Borough, enfield: Borough
) -> None:
    faces = [middle.listen(Face(real, "exchange.aaa.example")) for real in (hackney, enfield)]
    towards = {hackney: middle.hackney, enfield: middle.enfield}
    nonce = os.urandom(32)
    for borough, face in zip((hackney, enfield), faces, strict=True):
        start(borough, face.url)
        guess = Guess(face, towards[borough], nonce)
        nonce_in(guess.offer())
        assert guess.reveal()[0] == 200
        assert state(borough)["origin"] == "exchange.aaa.example", "the admin reads a name that is not the borough's"
    both_admins_say_no(middle)


def test_a_verified_peer_is_not_blocked_by_a_false_identity_that_a_pairing_showed(
    middle: Middle, hackney: Borough, enfield: Borough
) -> None:
    for face in (middle.hackney, middle.enfield):
        del face.play["/v1/card"]
    hackney.trusts(enfield)
    enfield.trusts(hackney)
    middle.enfield.play["/v1/card"] = lambda _, __: (200, middle.enfield.card_file())
    start(hackney, middle.enfield.url)
    guess = Guess(middle.enfield, middle.hackney, os.urandom(32))
    nonce_in(guess.offer())
    assert guess.reveal()[0] == 200
    assert len(has_words(hackney)) == 4
    shown = hackney.ask("peer", "show", enfield.origin)
    assert (shown["trust"], shown["candidate"]) == ("verified", None)
    refused = hackney.cli("peer", "pair", middle.enfield.url, "--words", "able able able able")
    assert refused.code == 4
    shown = hackney.ask("peer", "show", enfield.origin)
    assert (shown["trust"], shown["candidate"]) == ("verified", None)
    del middle.enfield.play["/v1/card"]
    assert hackney.status(hackney.send(FORM, ENFIELD), "received", 60)["reached"]
