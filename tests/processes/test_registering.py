"""Two nodes as processes are registered with one another, each way that there is, over HTTP and with mutual TLS."""

import contextlib
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.node.certificates import make_certificate
from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, Result, example, until
from tests.processes.ports import free_port
from tests.processes.terminal import Terminal, terminal

FORM = example("case-study-j")

Two = tuple[Borough, Borough]


def url_of(borough: Borough) -> str:
    """What an admin tells the other to type."""
    return str(borough.open_url or f"http://127.0.0.1:{borough.port}")


def options_for(other: Borough) -> list[object]:
    """What an admin gives so that the other's certificate is believed."""
    return ["--ca-file", other.directory / "tls.crt"] if other.open_url else []


@pytest.fixture(params=["http", "mutual"])
def two(request: pytest.FixtureRequest, town: Town) -> Two:
    """Two running nodes that do not know each other; with mutual TLS, strangers reach a listener of their own."""
    made = []
    for slug, area in (("hackney", HACKNEY), ("enfield", ENFIELD)):
        borough = town.borough(slug, area, scheme="https" if request.param == "mutual" else "http")
        if request.param == "mutual":
            make_certificate(slug, address="127.0.0.1", authority=True).write(borough.directory)
            borough.open_url = f"https://127.0.0.1:{(port := free_port())}"
            borough.configure(
                "listen",
                certificate="tls.crt",
                key="tls.key",
                mutual=True,
                open_address=f"127.0.0.1:{port}",
                open_url=borough.open_url,
            )
        made.append(borough.start())
    return made[0], made[1]


def by_number(hackney: Borough, enfield: Borough) -> None:
    for here, there in ((hackney, enfield), (enfield, hackney)):
        card = here.directory / "their.card"
        there.ask("card", "export", card)
        assert here.ask("peer", "import", card)["trust"] == "unverified"
    numbers = [hackney.ask("peer", "number", enfield.origin), enfield.ask("peer", "number", hackney.origin)]
    assert numbers[0]["number"] == numbers[1]["number"]
    read_out = " ".join(numbers[0]["number"])
    drawn = hackney.directory / "number.svg"
    drawn.write_text("kept")
    refused = hackney.cli("peer", "number", enfield.origin, "--svg", drawn)
    assert (refused.code, drawn.read_text()) == (2, "kept")
    hackney.ask("peer", "verify", enfield.origin, "--number", read_out)
    enfield.ask("peer", "verify", hackney.origin, "--number", read_out)


def by_invitation(hackney: Borough, enfield: Borough) -> None:
    file = hackney.directory / "for-enfield.invitation"
    made = hackney.ask("peer", "invite", "--file", file, *options_for(enfield))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made["link"] is None
    assert "secret" not in made
    accepted = enfield.ask("peer", "accept", file, *options_for(hackney))
    assert accepted["trust"] == "verified"
    assert accepted["verified_there"] is True
    (row,) = hackney.ask("peer", "invitations")["items"]
    assert (row["id"], row["used_by"]) == (made["id"], enfield.origin)


def by_words(hackney: Borough, enfield: Borough) -> None:
    with contextlib.ExitStack() as screens:
        one = screens.enter_context(
            terminal("peer", "pair", url_of(enfield), *options_for(enfield), config=hackney.config)
        )
        one.sees(f"exchange peer pair {url_of(hackney)}")
        # Whoever types while they wait has compared nothing.
        one.types("able")
        other = screens.enter_context(
            terminal("peer", "pair", url_of(hackney), *options_for(hackney), config=enfield.config)
        )
        shown = [words_on(screen) for screen in (one, other)]
        places = [words.index(".....") for words in shown]
        assert places[0] in (2, 3)
        assert places[1] in (0, 1)
        for place in {0, 1, 2, 3} - set(places):
            assert shown[0][place] == shown[1][place]
        one.types("buz")
        one.sees("'buz' is not a word of the list; type it again")
        one.sees("as they read it")
        for screen, read_out, place in ((one, shown[1], places[0]), (other, shown[0], places[1])):
            screen.types(read_out[place])
            screen.sees("verified")
            screen.sees("It is verified here. Messages go both ways once its admin has done the same.")
            assert screen.ends() == 0, screen.shown


def words_on(screen: Terminal) -> list[str]:
    """The words that a screen shows, once it asks for the one that is left out."""
    seen = screen.sees("as they read it, or n if another word differs")
    return [line.split() for line in seen.splitlines() if line.startswith("    ")][-1]


def hear_each_other(hackney: Borough, enfield: Borough, how: str) -> None:
    """Both have recorded how the other was verified, and a form goes either way."""
    for here, there, area in ((hackney, enfield, ENFIELD), (enfield, hackney, HACKNEY)):
        shown = here.ask("peer", "show", there.origin)
        own = there.ask("card", "show")["fingerprint"]
        assert (shown["trust"], shown["fingerprint"], shown["verified_how"]) == ("verified", own, how)
        (record,) = shown["verifications"]
        assert (record["how"], record["fingerprint"]) == (how, own)
        assert record["who"]
        assert record["at"]
        if here.area == HACKNEY:
            assert here.status(here.send(FORM, area), "received", 60)["reached"]
    for borough in (hackney, enfield):
        until(
            "the greeting was heard",
            lambda node=borough: all(
                not lane["lane"].startswith("peer:") for lane in node.api("GET", "/v1/health")["lanes"]
            ),
        )
    assert hackney.ask("alarms")["items"] == enfield.ask("alarms")["items"] == []


@pytest.mark.parametrize(
    ("register", "how"),
    [(by_number, "number"), (by_invitation, "invitation"), (by_words, "words")],
    ids=["number", "invitation", "words"],
)
def test_two_nodes_verify_each_other_and_exchange_a_form(
    two: Two, register: Callable[[Borough, Borough], None], how: str
) -> None:
    register(*two)
    hear_each_other(*two, how)


@pytest.fixture
def plain(town: Town) -> Two:
    """Two running nodes that do not know each other."""
    return town.borough("hackney", HACKNEY).start(), town.borough("enfield", ENFIELD).start()


def test_an_invitation_travels_as_a_word_through_standard_input_or_as_an_argument(plain: Two, tmp_path: Path) -> None:
    hackney, enfield = plain
    told = hackney.cli("peer", "invite")
    word = told.stdout.strip()
    assert word.startswith("exchange-invitation:")
    assert "secret" in told.stderr
    assert "uninvite" in told.stderr
    piped = subprocess.run(
        [sys.executable, "-m", "exchange.cli.main", "peer", "accept", "-", "--json", "--config", enfield.config],
        input=f"\n  {word[:90]}\n{word[90:]}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (piped.returncode, json.loads(piped.stdout)["trust"]) == (0, "verified"), piped
    assert enfield.ask("peer", "accept", word)["trust"] == "verified", "the same once more does no harm"


def test_a_qr_code_holds_the_invitation_and_its_file_is_for_its_owner_alone(plain: Two, tmp_path: Path) -> None:
    hackney, _ = plain
    drawn = tmp_path / "invitation.svg"
    told = hackney.cli("peer", "invite", "--qr", "--svg", drawn)
    assert told.code == 0, told
    assert "exchange-invitation:" not in told.stdout + told.stderr
    assert "\N{FULL BLOCK}" in told.stdout or "\N{LOWER HALF BLOCK}" in told.stdout
    assert stat.S_IMODE(drawn.stat().st_mode) == 0o600
    assert b"<svg" in drawn.read_bytes()
    assert f"Delete {drawn}" in told.stderr


def test_an_invitation_is_never_written_over_a_file_and_none_is_left_behind(plain: Two, tmp_path: Path) -> None:
    hackney, _ = plain
    file = tmp_path / "there"
    file.write_text("kept")
    assert hackney.cli("peer", "invite", "--file", file).code == 2
    assert hackney.cli("peer", "invite", "--file", tmp_path / "nowhere" / "file").code == 1
    assert file.read_text() == "kept"
    assert hackney.ask("peer", "invitations")["items"] == []


def test_what_was_withdrawn_is_not_honoured_and_what_is_no_invitation_is_refused(plain: Two, tmp_path: Path) -> None:
    hackney, enfield = plain
    made = hackney.ask("peer", "invite")
    hackney.ask("peer", "uninvite", made["id"])
    assert hackney.cli("peer", "uninvite", made["id"]).code == 3
    refused = enfield.cli("peer", "accept", made["link"], "--json")
    assert (refused.code, refused.document["code"]) == (4, "unacceptable")
    assert "telephone" in refused.document["hint"]
    for text in ("exchange-invitation:AAAA", made["link"][:-8], made["link"][:-1] + "!"):
        assert enfield.cli("peer", "accept", text, "--json").document["code"] == "invitation-invalid"
    assert enfield.cli("peer", "accept", tmp_path / "missing").code == 1
    assert enfield.cli("peer", "accept", hackney.config).code == 5
    assert hackney.cli("peer", "accept", hackney.ask("peer", "invite")["link"]).code == 2
    assert hackney.ask("peer", "list")["items"] == enfield.ask("peer", "list")["items"] == []


def test_a_node_whose_admin_has_not_started_is_waited_for_and_ctrl_c_ends_the_waiting(plain: Two) -> None:
    hackney, enfield = plain
    with terminal("peer", "pair", url_of(hackney), config=enfield.config) as screen:
        screen.sees("Waiting for the other side")
        until("it has asked", lambda: "pairings_refused" in hackney.api("GET", "/v1/health")["counters"])
        busy = enfield.cli("peer", "pair", url_of(hackney), "--no-ask", "--json")
        assert (busy.code, busy.document["code"]) == (1, "already-there")
        assert screen.interrupt() == 1
    (found,) = enfield.api("GET", "/v1/pairings")["items"]
    assert (found["state"], found["reason"]) == ("failed", "it was stopped here")
    assert hackney.ask("peer", "list")["items"] == enfield.ask("peer", "list")["items"] == []


def test_an_admin_who_says_no_keeps_nothing_and_leaves_an_alarm(plain: Two) -> None:
    hackney, enfield = plain
    with (
        terminal("peer", "pair", url_of(enfield), config=hackney.config) as one,
        terminal("peer", "pair", url_of(hackney), config=enfield.config) as other,
    ):
        for screen in (one, other):
            words_on(screen)
        one.types("n")
        one.sees("the words differ")
        one.sees("security lead")
        assert one.ends() == 4
    (alarm,) = hackney.ask("alarms")["items"]
    assert (alarm["kind"], alarm["origin"]) == ("pairing-words-differ", enfield.origin)
    assert hackney.ask("peer", "list")["items"] == []


def show_words(*boroughs: Borough) -> list[list[str]]:
    """Both start, as programs do; the words of each."""
    first, second = boroughs
    started = first.api("POST", "/v1/pairings", {"url": url_of(second)})
    shown = second.ask("peer", "pair", url_of(first), "--no-ask")["words"]
    words = until("the words are there", lambda: first.api("GET", f"/v1/pairings/{started['id']}?timeout_s=1")["words"])
    return [words, shown]


def test_a_program_shows_the_words_first_and_confirms_what_was_read_out_afterwards(plain: Two) -> None:
    hackney, enfield = plain
    asked: Result = hackney.cli("peer", "pair", url_of(enfield))
    assert (asked.code, "--words" in asked.stderr) == (2, True)
    assert hackney.cli("peer", "pair", url_of(enfield), "--words", "able able able able").code == 4
    words, shown = show_words(hackney, enfield)
    assert words == shown
    for text, why in (("able buz able able", "'buz' is not a word of the list"), ("able able able", "you gave 3")):
        mistyped = hackney.cli("peer", "pair", url_of(enfield), "--words", text)
        assert (mistyped.code, why in mistyped.stderr) == (2, True)
    spoken = ", ".join(words).upper()
    assert hackney.ask("peer", "pair", url_of(enfield), "--words", spoken)["trust"] == "verified"
    assert hackney.cli("peer", "pair", url_of(enfield), "--words", spoken).code == 4, "they were used"
    wrong = enfield.cli("peer", "pair", url_of(hackney), "--words", " ".join(reversed(words)), "--json")
    assert (wrong.code, wrong.document["code"]) == (4, "fingerprint-mismatch")
    assert enfield.ask("peer", "list")["items"] == []


def test_a_restart_ends_a_pairing(plain: Two) -> None:
    hackney, enfield = plain
    show_words(hackney, enfield)
    enfield.restart()
    assert enfield.cli("peer", "pair", url_of(hackney), "--words", "able able able able").code == 4
    assert enfield.cli("peer", "pair", url_of(hackney), "--stop").code == 3
    assert hackney.cli("peer", "pair", url_of(enfield), "--stop").code == 0
