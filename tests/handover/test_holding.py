"""What may be said of a section, and what that makes of it: no sequence leads where it must not."""

import runpy
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from exchange.handover.holding import TABLE, By, Event, Guard, State, holder_after, transition

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
    assert set(Event) == {"accept", "own", "query", "redirect"}
    for state in set(State) - {State.REDIRECTED}:
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
def test_a_holder_goes_by_handing_on_or_by_redirecting_alone(said: list[tuple[tuple[Event, Guard, By], str]]) -> None:
    section = Section()
    for (event, guard, by), name in said:
        line = transition(section.state, event, guard, by)
        if line is None:
            continue
        after = Section(line.next, holder_after(line, section.holder, name))
        if section.holder is not None and after.holder != section.holder:
            assert line.receipt == ("owned" if event == Event.OWN else "redirected")
            assert event in (Event.OWN, Event.REDIRECT)
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


def test_the_page_has_the_table_of_today() -> None:
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "agencies.md").read_text(encoding="utf-8")
    script = runpy.run_path(str(docs / "render_holding.py"))
    assert script["page"](text) == text, "run: python docs/render_holding.py"
