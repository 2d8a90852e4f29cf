"""The states of an endpoint, and those of a secret that rotates: no sequence of events leads where it must not."""

from hypothesis import given
from hypothesis import strategies as st

from exchange.handover.endpoint import TABLE, Event, State, transition
from exchange.handover.secret_rotation import TABLE as SECRETS
from exchange.handover.secret_rotation import Sign, Stage, step

BY_A_PERSON = {Event.RESUME, Event.ENABLE}


def test_no_pair_of_state_and_event_stands_twice() -> None:
    pairs = [(line.state, line.event) for line in TABLE]
    assert len(set(pairs)) == len(pairs)


def test_what_an_endpoint_answers_has_a_line_in_every_state() -> None:
    assert all(transition(state, event) for state in State for event in (Event.GONE, Event.EXHAUSTED))


def test_whoever_disables_an_endpoint_tells_the_admins() -> None:
    for line in TABLE:
        assert line.alarm == (line.next == State.DISABLED != line.state)


@given(st.lists(st.sampled_from(Event)))
def test_only_a_person_makes_an_endpoint_active_again(events: list[Event]) -> None:
    state = State.ACTIVE
    for event in events:
        line = transition(state, event)
        if line is None:
            continue
        if state != State.ACTIVE and line.next == State.ACTIVE:
            assert event in BY_A_PERSON
        state = line.next


@given(st.lists(st.sampled_from(Event)))
def test_a_disabled_endpoint_is_not_resumed_by_ending_a_pause(events: list[Event]) -> None:
    state = State.ACTIVE
    for event in events:
        line = transition(state, event)
        state = line.next if line is not None else state
    if state == State.DISABLED:
        assert transition(state, Event.RESUME) is None
        assert transition(state, Event.PAUSE) is None


@given(st.lists(st.sampled_from(Sign)))
def test_an_old_secret_goes_only_when_the_overlap_has_passed_and_the_new_one_was_the_last_to_be_named(
    signs: list[Sign],
) -> None:
    stage, named, time_up = Stage.SINGLE, None, False
    for sign in signs:
        line = step(stage, sign)
        if stage != Stage.SINGLE:
            named = sign if sign in (Sign.NEW_NAMED, Sign.OLD_NAMED) else named
            time_up = time_up or sign == Sign.TIME_UP
        if line is None:
            continue
        if line.retire:
            assert line.next == Stage.SINGLE
            assert named == Sign.NEW_NAMED
            assert time_up
        if stage == Stage.SINGLE:
            named, time_up = None, False
        stage = line.next


def test_an_overlap_without_proof_locks_nobody_out_and_tells_the_admins() -> None:
    line = step(Stage.OVERLAP, Sign.TIME_UP)
    assert line is not None
    assert (line.next, line.retire, line.alarm) == (Stage.OVERDUE, False, True)


def test_a_rotation_is_begun_only_where_none_is_under_way() -> None:
    assert [line.stage for line in SECRETS if line.sign == Sign.ROTATED] == [Stage.SINGLE]
