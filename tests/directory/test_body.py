"""The body's side: what is listed, who must sign, and what is published, whatever stops it half-way."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tuf.api.metadata import Root

from exchange.crypto.errors import WrongPassphrase
from exchange.crypto.secret import Secret
from exchange.directory import body as body_module
from exchange.directory import changes, publishing, review
from exchange.directory.body import Body
from exchange.directory.errors import DirectoryError, DirectoryUnreadable, SignaturesMissing
from exchange.directory.keyfile import KeyFile, holder_of, new_key, parse_key_file
from exchange.directory.metadata import check_root, copy_signatures, may_sign
from exchange.node.directory_client import Known, Outcome, look
from exchange.node.errors import RequestInvalid
from tests.directory.office import CHEAP, DAY_MS, PASSPHRASE, Office, card_bytes, holder
from tests.node.handmade import Borough
from tests.node.pair import Clock

CAMDEN, ISLINGTON = "E09000007", "E09000019"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def office(tmp_path: Path, clock: Clock) -> Office:
    return Office(tmp_path, clock)


@pytest.fixture
def camden(clock: Clock) -> Borough:
    return Borough("exchange.camden.example", CAMDEN, clock)


@pytest.fixture
def islington(clock: Clock) -> Borough:
    return Borough("exchange.islington.example", ISLINGTON, clock)


def seen(office: Office, files: dict[str, bytes] | None = None) -> Outcome:
    """What a client sees of what is published: a new one, or one that has seen something before."""
    known = Known("http://directory.invalid", files or {"root": office.root()})
    return look(known, publishing._Files(office.out), office.now)


def listed(office: Office) -> set[str]:
    outcome = seen(office)
    assert outcome.listing is not None, outcome.problem
    return set(outcome.listing.cards)


# What may be listed.


def test_a_borough_is_listed_once_enough_have_signed(office: Office, camden: Borough) -> None:
    office.release(camden.card())
    assert listed(office) == {CAMDEN}


def test_another_identity_for_an_area_is_listed_only_where_that_was_said(office: Office, camden: Borough) -> None:
    office.list(camden.card())
    other = Borough(camden.origin, CAMDEN, camden._now_ms)
    with pytest.raises(DirectoryError, match="another identity") as found:
        office.list(other.card())
    assert "--replace" in found.value.hint
    office.list(other.card(), replace=True)


def test_another_origin_for_an_area_is_listed_only_where_that_was_said(
    office: Office, camden: Borough, clock: Clock
) -> None:
    office.list(camden.card())
    with pytest.raises(DirectoryError, match=r"exchange\.camden\.example is listed for E09000007"):
        office.list(Borough("exchange.other.example", CAMDEN, clock).card())


def test_one_node_is_not_listed_for_two_areas(office: Office, camden: Borough) -> None:
    office.list(camden.card())
    with pytest.raises(DirectoryError, match="is listed for E09000007 already"):
        office.list(camden.card(area=ISLINGTON), replace=True)


def test_a_card_that_has_expired_is_not_listed(office: Office, camden: Borough, clock: Clock) -> None:
    card = camden.card()
    clock.now_ms += 91 * DAY_MS
    with pytest.raises(DirectoryError, match="has expired"):
        office.list(card)


def test_a_card_of_an_area_that_is_in_no_list_is_not_listed(office: Office, clock: Clock) -> None:
    with pytest.raises(DirectoryError, match="not in the list of areas"):
        office.list(Borough("exchange.nowhere.example", "E09000099", clock).card())


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 10_000, b'{"statement": "AAAA", "proof": "x"}'])
def test_what_is_not_a_card_is_not_listed(office: Office, data: bytes) -> None:
    with pytest.raises(RequestInvalid):
        office.list(data)


def test_an_older_card_does_not_replace_a_newer_one_and_the_same_changes_nothing(
    office: Office, camden: Borough
) -> None:
    old, new = camden.card(), camden.card()
    office.list(new)
    with pytest.raises(DirectoryError, match="older"):
        office.list(old)
    office.sign()
    found = changes.look_at(office.body, card_bytes(new), office.now)
    assert not changes.add(office.body, found, "again", office.now, replace=False)
    office.publish()


def test_how_it_was_compared_is_in_the_journal_and_shown_to_who_signs(office: Office, camden: Borough) -> None:
    office.list(camden.card())
    staged = office.body.staged_targets()
    assert staged is not None
    (line,) = review.review_targets(office.body, office.body.published(), staged.signed)
    assert (line.change, line.area, line.fingerprint) == ("added", CAMDEN, camden.fingerprint)
    assert "in a test" in line.notes[0]


def test_who_signs_sees_what_is_new_changed_removed_and_as_before(
    office: Office, camden: Borough, islington: Borough, clock: Clock
) -> None:
    enfield = Borough("exchange.enfield.example", "E09000010", clock)
    barnet = Borough("exchange.barnet.example", "E09000003", clock)
    office.release(camden.card(), islington.card(), enfield.card())
    office.list(barnet.card())
    anew = Borough(camden.origin, CAMDEN, clock)
    office.list(anew.card(), replace=True)
    office.remove(ISLINGTON)
    staged = office.body.staged_targets()
    assert staged is not None
    lines = review.review_targets(office.body, office.body.published(), staged.signed)
    assert [(line.change, line.area, line.fingerprint, line.was) for line in lines] == [
        ("added", "E09000003", barnet.fingerprint, None),
        ("changed", CAMDEN, anew.fingerprint, camden.fingerprint),
        ("removed", ISLINGTON, islington.fingerprint, None),
        ("unchanged", "E09000010", enfield.fingerprint, None),
    ]


def test_a_card_that_was_exchanged_in_the_working_directory_is_not_shown_as_what_is_signed(
    office: Office, camden: Borough, islington: Borough
) -> None:
    office.list(camden.card())
    path = office.body.staged / "cards" / f"{CAMDEN}.json"
    path.write_bytes(card_bytes(islington.card()))
    staged = office.body.staged_targets()
    assert staged is not None
    with pytest.raises(DirectoryUnreadable, match="not the one that is listed"):
        review.review_targets(office.body, office.body.published(), staged.signed)


# Who must sign.


def test_below_the_threshold_nothing_is_published_and_it_says_who_is_missing(office: Office, camden: Borough) -> None:
    office.list(camden.card())
    office.sign(office.targets_holders[0], *office.root_holders)
    with pytest.raises(SignaturesMissing, match="targets: 1 of 2") as found:
        office.publish()
    assert "ben" in found.value.hint
    assert "cora" in found.value.hint
    assert "anna" not in found.value.hint
    assert not office.out.exists()


def test_whatever_changes_what_is_staged_drops_its_signatures(
    office: Office, camden: Borough, islington: Borough
) -> None:
    office.list(camden.card())
    office.sign()
    office.list(islington.card())
    with pytest.raises(SignaturesMissing, match="targets: 0 of 2"):
        office.publish()


def test_signatures_are_collected_from_copies_that_were_signed_elsewhere(
    office: Office, camden: Borough, tmp_path: Path
) -> None:
    office.list(camden.card())
    copies = []
    for number, one in enumerate(office.targets_holders[:2]):
        copy = Body(Path(shutil.copytree(office.body.path, tmp_path / f"copy-{number}")))
        staged = copy.staged_targets()
        assert staged is not None
        staged.sign(one.signer, append=True)
        copy.stage(staged)
        copies.append(copy)
    root = office.body.staged_root()
    assert root is not None
    for copy in copies:
        here, there = office.body.staged_targets(), copy.staged_targets()
        assert here is not None
        assert there is not None
        assert len(copy_signatures(here, there, root.signed.keys.values())) == 1
        office.body.stage(here)
    office.sign(*office.root_holders)
    office.publish()
    assert listed(office) == {CAMDEN}


def test_no_signature_is_collected_for_something_else_or_from_a_stranger(
    office: Office, camden: Borough, islington: Borough, tmp_path: Path
) -> None:
    office.list(camden.card())
    copy = Body(Path(shutil.copytree(office.body.path, tmp_path / "copy")))
    there, root = copy.staged_targets(), office.body.staged_root()
    assert there is not None
    assert root is not None
    there.sign(holder("stranger").signer)
    here = office.body.staged_targets()
    assert here is not None
    assert copy_signatures(here, there, root.signed.keys.values()) == []
    office.list(islington.card())
    here = office.body.staged_targets()
    assert here is not None
    with pytest.raises(DirectoryError, match="not the same"):
        copy_signatures(here, there, root.signed.keys.values())


def test_a_key_signs_what_it_belongs_to_and_nothing_else(office: Office) -> None:
    root = office.body.staged_root()
    assert root is not None
    ids = [one[0].file.key().keyid for one in (office.root_holders, office.targets_holders, [office.online])]
    assert [may_sign(keyid, root.signed, None) for keyid in ids] == [("root",), ("targets",), ()]


# Keyholders who leave.


def replaced(office: Office, role: str, name: str) -> Callable[[Root], None]:
    new = holder("dora")
    (office.root_holders if role == "root" else office.targets_holders)[0] = new

    def change(root: Root) -> None:
        changes.remove_key(root, role, name)
        changes.add_key(root, role, new.file.key())

    return change


def test_a_new_root_takes_signatures_of_the_old_keyholders_and_of_the_new_ones(office: Office, camden: Borough) -> None:
    office.release(camden.card())
    old = list(office.root_holders)
    changes.change_root(office.body, office.now, "test", replaced(office, "root", "anna-root"))
    new = office.root_holders[0]
    office.sign(new, old[1])
    with pytest.raises(SignaturesMissing, match="root: 1 of 2") as found:
        office.publish()
    assert "anna-root" in found.value.hint
    assert "dora" not in found.value.hint
    office.sign(old[0])
    office.publish()
    outcome = seen(office)
    assert outcome.listing is not None
    assert outcome.listing.versions["root"] == 2


def test_when_a_targets_key_is_replaced_the_listing_is_signed_anew(office: Office, camden: Borough) -> None:
    office.release(camden.card())
    changes.change_root(office.body, office.now, "test", replaced(office, "targets", "ben"))
    changes.change_root(office.body, office.now, "test", lambda root: root.roles["targets"].__setattr__("threshold", 3))
    office.sign()
    with pytest.raises(DirectoryError, match="signed by too few") as found:
        office.publish()
    assert "renew targets" in found.value.hint
    assert listed(office) == {CAMDEN}


@pytest.mark.parametrize("threshold", [0, 4])
def test_a_root_that_nobody_could_sign_is_refused(office: Office, threshold: int) -> None:
    with pytest.raises(DirectoryError, match=f"{threshold} of 3 keys cannot be"):
        changes.change_root(
            office.body, office.now, "test", lambda root: root.roles["root"].__setattr__("threshold", threshold)
        )


def test_one_key_is_not_used_for_two_things(office: Office) -> None:
    key = office.targets_holders[0].file.key()
    with pytest.raises(DirectoryError, match="at once"):
        changes.change_root(office.body, office.now, "test", lambda root: changes.add_key(root, "root", key))


def test_who_is_to_be_removed_is_named_or_the_names_are_told(office: Office) -> None:
    root = office.body.staged_root()
    assert root is not None
    with pytest.raises(DirectoryError, match="nobody called 'dora'") as found:
        changes.remove_key(root.signed, "root", "dora")
    assert "anna-root" in found.value.hint


def test_who_holds_several_keys_is_named_as_each_key_says() -> None:
    keys = [holder(name).file.key() for name in ("Ben Example", "Ben Example (root)")]
    root = Root()
    for key in keys:
        root.add_key(key, "root")
    assert changes.remove_key(root, "root", "Ben Example (root)").startswith("Ben Example (root) (")
    assert root.roles["root"].keyids == [keys[0].keyid]
    changes.remove_key(root, "root", keys[0].keyid[:8])
    assert root.roles["root"].keyids == []


def test_one_key_does_not_count_twice_under_two_names(office: Office) -> None:
    root = office.body.staged_root()
    assert root is not None
    again = office.root_holders[0].file.key()
    again.keyid = "0" * 64
    root.signed.add_key(again, "root")
    with pytest.raises(DirectoryError, match="under two names"):
        check_root(root.signed)


def test_what_others_wrote_does_not_command_the_terminal_of_who_signs(office: Office, camden: Borough) -> None:
    found = changes.look_at(office.body, card_bytes(camden.card()), office.now)
    changes.add(office.body, found, "by \x1b[2Jnobody\n", office.now, replace=False)
    staged = office.body.staged_targets()
    assert staged is not None
    (line,) = review.review_targets(office.body, office.body.published(), staged.signed)
    assert line.notes[0].endswith("by ?[2Jnobody?")
    key = office.root_holders[0].file.key()
    key.unrecognized_fields["x-exchange-holder"] = "Anna\x1b]0;"
    assert holder_of(key).startswith("Anna?]0; (")


# Key files.


def test_a_key_opens_with_its_passphrase_and_no_other() -> None:
    private, public = new_key("Anna Example", PASSPHRASE, CHEAP)
    file = parse_key_file(private)
    assert file.signer(PASSPHRASE).public_key.keyid == parse_key_file(public).key().keyid
    with pytest.raises(WrongPassphrase):
        file.signer(Secret(b"another passphrase"))
    with pytest.raises(DirectoryUnreadable, match="public half"):
        parse_key_file(public).signer(PASSPHRASE)


@pytest.mark.parametrize("changes_to_file", [{"holder": "Somebody else"}, {"public": bytes(32)}])
def test_a_key_file_that_says_it_is_of_another_is_refused(changes_to_file: dict[str, Any]) -> None:
    file: KeyFile = parse_key_file(new_key("Anna Example", PASSPHRASE, CHEAP)[0])
    with pytest.raises(DirectoryUnreadable, match="altered"):
        msgspec.structs.replace(file, **changes_to_file).signer(PASSPHRASE)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101])
def test_a_holder_has_a_name_that_can_be_shown(name: str) -> None:
    with pytest.raises(DirectoryError):
        new_key(name, PASSPHRASE, CHEAP)


# What a keyholder's own copy of the root is for.


def test_a_working_directory_that_was_made_up_is_found_by_who_keeps_the_root(
    office: Office, camden: Borough, tmp_path: Path, clock: Clock
) -> None:
    office.release(camden.card())
    mine = office.root()
    review.check_published(office.body, office.body.published(), mine)
    false = Office(tmp_path / "false", clock)
    false.release(camden.card())
    with pytest.raises(DirectoryUnreadable, match="not the one that you keep"):
        review.check_published(false.body, false.body.published(), mine)


def test_what_is_said_to_be_published_must_have_been_signed(office: Office, camden: Borough) -> None:
    office.release(camden.card())
    published = office.body.published()
    assert published.targets is not None
    published.targets.signatures.clear()
    path = office.body.repository / "metadata" / f"{published.targets.signed.version}.targets.json"
    path.write_bytes(published.targets.to_bytes())
    with pytest.raises(DirectoryUnreadable, match="not signed by its keyholders"):
        review.check_published(office.body, office.body.published(), None)


# Publishing.


def test_publishing_again_renews_what_expires_and_leaves_what_is_staged(
    office: Office, camden: Borough, islington: Borough, clock: Clock
) -> None:
    office.release(camden.card())
    office.list(islington.card())
    clock.now_ms += 6 * DAY_MS
    office.publish(renew_only=True)
    clock.now_ms += 6 * DAY_MS
    assert listed(office) == {CAMDEN}
    office.sign()
    office.publish()
    assert listed(office) == {CAMDEN, ISLINGTON}


def test_without_publishing_again_a_client_refuses_it(office: Office, camden: Borough, clock: Clock) -> None:
    office.release(camden.card())
    clock.now_ms += 7 * DAY_MS
    problem = seen(office).problem
    assert problem is not None
    assert problem.code == "expired"


@pytest.mark.parametrize(("days", "part"), [(181, "targets"), (366, "root")])
def test_what_people_signed_and_has_expired_is_not_published_again(
    office: Office, camden: Borough, clock: Clock, days: int, part: str
) -> None:
    office.release(camden.card())
    if part == "root":
        office.renew("targets")
        clock.now_ms += 100 * DAY_MS
        office.renew("targets")
        office.sign()
        office.publish()
        clock.now_ms += 150 * DAY_MS
        office.renew("targets")
        office.sign()
        office.publish()
        clock.now_ms += (days - 250) * DAY_MS
    else:
        clock.now_ms += days * DAY_MS
    with pytest.raises(DirectoryError, match=f"the {part} expired") as found:
        office.publish(renew_only=True)
    assert f"renew {part}" in found.value.hint
    office.renew(part)
    office.sign()
    office.publish()


def test_with_another_online_key_nothing_is_published(office: Office, camden: Borough) -> None:
    office.release(camden.card())
    office.online = holder("another")
    with pytest.raises(DirectoryError, match="online key is not the one"):
        office.publish(renew_only=True)


def test_from_a_copy_that_is_older_than_what_is_published_nothing_is_published(
    office: Office, camden: Borough, islington: Borough, tmp_path: Path
) -> None:
    office.release(camden.card())
    copy = shutil.copytree(office.body.path, tmp_path / "copy")
    office.release(islington.card())
    office.body = Body(Path(copy))
    with pytest.raises(DirectoryError, match="from another copy"):
        office.publish(renew_only=True)
    assert listed(office) == {CAMDEN, ISLINGTON}


class _Cut(Exception):
    pass


@pytest.mark.parametrize("at", range(24))
def test_whatever_stops_publishing_half_way_clients_see_before_or_after_and_it_can_be_done_again(
    office: Office, camden: Borough, islington: Borough, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    office.release(camden.card())
    first = seen(office)
    office.list(islington.card())
    changes.change_root(office.body, office.now, "test", lambda _: None)
    office.sign()
    written = 0
    really = body_module.write_file

    def cut(path: Path, data: bytes, mode: int = 0o644) -> None:
        nonlocal written
        if written == at:
            raise _Cut
        written += 1
        really(path, data, mode)

    with monkeypatch.context() as patched:
        patched.setattr(publishing, "write_file", cut)
        patched.setattr(body_module, "write_file", cut)
        try:
            office.publish()
        except _Cut:
            pass
        else:
            assert written <= at
    assert listed(office) in ({CAMDEN}, {CAMDEN, ISLINGTON})
    with office.body.held():
        office.publish()
    assert listed(office) == {CAMDEN, ISLINGTON}
    again = seen(office, dict(first.files))
    assert again.listing is not None, again.problem
    # And a change after it is seen by those who saw this.
    office.remove(CAMDEN)
    office.sign()
    office.publish()
    last = seen(office, dict(again.files))
    assert last.listing is not None
    assert set(last.listing.cards) == {ISLINGTON}


def test_old_snapshots_are_removed(office: Office, camden: Borough) -> None:
    office.release(camden.card())
    for _ in range(8):
        office.publish(renew_only=True)
    assert len(list((office.out / "metadata").glob("*.snapshot.json"))) == 5


# Where it stands.


def codes(office: Office, **ahead: float) -> list[str]:
    with office.body.held():
        return [item["code"] for item in review.status(office.body, office.now + timedelta(**ahead))["advice"]]


def test_the_status_says_what_is_to_be_done(office: Office, camden: Borough) -> None:
    assert codes(office) == ["sign", "sign"]
    office.list(camden.card())
    office.sign()
    assert codes(office) == ["publish"]
    office.publish()
    assert codes(office) == []
    assert codes(office, days=6) == ["renew-timestamp"]
    assert codes(office, days=80) == ["renew-timestamp", "card"]
    assert codes(office, days=160) == ["renew-targets", "renew-timestamp", "card"]
    assert codes(office, days=340) == ["renew-root", "renew-targets", "renew-timestamp", "card"]


def test_a_directory_is_not_made_over_another(office: Office) -> None:
    with pytest.raises(DirectoryError, match="already"):
        changes.make(office.body.path, office.body.settings(), {}, {}, office.now)


def test_two_commands_do_not_work_on_one_directory_at_once(office: Office) -> None:
    with office.body.held(), pytest.raises(DirectoryError, match="another command"), Body(office.body.path).held():
        pass
