"""What may be said of a section, and what that makes of it: no sequence leads where it must not."""

import runpy
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from exchange.handover.holding import OVER, TABLE, By, Event, Guard, State, after_order, holder_after, transition

GUARDS = {Event.ACCEPT: (Guard.NEW,), Event.REDIRECT: (Guard.HERE, Guard.AWAY, Guard.AGAIN)}
EVENTS = [(event, guard, by) for event in Event for guard in GUARDS.get(event, (Guard.NEW, Guard.AGAIN)) for by in By]
moves = st.lists(st.tuples(st.sampled_from(EVENTS), st.sampled_from(("Ana", "Ben", "Cal"))), max_size=30)


@dataclass
class Section:
    """A section at an agency, as the table moves it."""

    state: State = State.ROUTED
    holder: str | None = None


def test_no_line_stands_twice() -> None:
    keys = [(line.state, line.event, line.guard) for line in TABLE]
    assert len(set(keys)) == len(keys)


def test_what_was_said_before_changes_nothing_and_signs_nothing() -> None:
    for line in TABLE:
        if line.guard == Guard.AGAIN:
            assert (line.next, line.receipt) == (line.state, None)
        else:
            assert line.receipt is not None


def test_there_is_no_bare_reject_and_who_may_own_may_ask_and_redirect() -> None:
    assert set(Event) == {"accept", "own", "query", "redirect", "recall", "erase"}
    for state in set(State) - OVER - {State.REDIRECTED}:
        for event, guard in ((Event.OWN, Guard.NEW), (Event.QUERY, Guard.NEW), (Event.REDIRECT, Guard.AWAY)):
            assert transition(state, event, guard, By.AGENCY) is not None


def test_nobody_but_the_agency_speaks_of_what_it_has_not_accepted() -> None:
    for event, guard, by in EVENTS:
        if guard != Guard.AGAIN and by == By.BOROUGH:
            assert transition(State.ROUTED, event, guard, by) is None


@given(moves)
def test_a_section_has_a_holder_exactly_while_it_is_owned(said: list[tuple[tuple[Event, Guard, By], str]]) -> None:
    section = Section()
    for (event, guard, by), name in said:
        line = transition(section.state, event, guard, by)
        if line is None:
            continue
        section = Section(line.next, holder_after(line, section.holder, name))
        assert (section.holder is not None) == (section.state == State.OWNED)


@given(moves)
def test_a_holder_goes_by_handing_on_redirecting_or_an_order_alone(
    said: list[tuple[tuple[Event, Guard, By], str]],
) -> None:
    section = Section()
    for (event, guard, by), name in said:
        line = transition(section.state, event, guard, by)
        if line is None:
            continue
        after = Section(line.next, holder_after(line, section.holder, name))
        if section.holder is not None and after.holder != section.holder:
            wanted = {Event.OWN: "owned", Event.RECALL: "recalled", Event.ERASE: "erased"}
            assert line.receipt == wanted.get(event, "redirected")
            assert event in (*wanted, Event.REDIRECT)
            assert guard != Guard.AGAIN
        section = after


@given(moves)
def test_every_change_of_holder_or_state_is_signed_for(said: list[tuple[tuple[Event, Guard, By], str]]) -> None:
    section = Section()
    for (event, guard, by), name in said:
        line = transition(section.state, event, guard, by)
        if line is None:
            continue
        after = Section(line.next, holder_after(line, section.holder, name))
        assert line.receipt is not None or after == section
        section = after


@given(moves)
def test_what_is_over_does_not_move_any_more_but_from_recalled_to_erased(
    said: list[tuple[tuple[Event, Guard, By], str]],
) -> None:
    state = State.ROUTED
    for (event, guard, by), _ in said:
        line = transition(state, event, guard, by)
        if line is None:
            continue
        if state in OVER:
            assert line.next == state or (state, line.next) == (State.RECALLED, State.ERASED)
            assert by == By.SENDER
        state = line.next


def test_only_the_sender_orders_and_may_do_so_in_every_state() -> None:
    for state in State:
        for event in (Event.RECALL, Event.ERASE):
            assert any(transition(state, event, guard, By.SENDER) for guard in (Guard.NEW, Guard.AGAIN))
            assert not any(transition(state, event, guard, by) for guard in Guard for by in (By.AGENCY, By.BOROUGH))


def test_an_order_puts_a_section_where_the_table_says_wherever_it_stood() -> None:
    for rung in (None, "received", *State):
        assert after_order(rung, Event.ERASE) == State.ERASED
        assert after_order(rung, Event.RECALL) == (State.ERASED if rung == "erased" else State.RECALLED)


def test_the_page_has_the_table_of_today() -> None:
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "agencies.md").read_text(encoding="utf-8")
    script = runpy.run_path(str(docs / "render_holding.py"))
    assert script["page"](text) == text, "run: python docs/render_holding.py"
