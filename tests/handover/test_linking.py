"""Whether a one-time link can be used: by table; and that what is final stays said, whatever comes after."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.handover.holding import State
from exchange.handover.linking import Standing, standing

NOW = 1_000

TABLE = [
    # used, withdrawn, ends, state, needs delivery, how it stands
    (False, False, NOW + 1, State.ROUTED, False, Standing.GOOD),
    (False, False, NOW + 1, State.ROUTED, True, Standing.ELSEWHERE),
    (False, False, NOW + 1, State.DELIVERED, True, Standing.GOOD),
    (False, False, NOW + 1, State.QUERIED, False, Standing.GOOD),
    (False, False, NOW + 1, State.OWNED, False, Standing.TAKEN),
    (False, False, NOW + 1, State.REDIRECTED, False, Standing.ELSEWHERE),
    (False, False, NOW + 1, None, False, Standing.ELSEWHERE),
    (False, False, NOW, State.DELIVERED, False, Standing.EXPIRED),
    (False, True, NOW, State.DELIVERED, False, Standing.WITHDRAWN),
    (True, True, NOW, State.DELIVERED, False, Standing.USED),
    (True, False, NOW + 1, State.OWNED, False, Standing.USED),
]


@pytest.mark.parametrize(("used", "withdrawn", "ends", "state", "needs", "how"), TABLE)
def test_how_a_link_stands(used: bool, withdrawn: bool, ends: int, state: State | None, needs: bool, how: str) -> None:
    found = standing(used=used, withdrawn=withdrawn, expires_at_ms=ends, now_ms=NOW, state=state, needs_delivery=needs)
    assert found is how


@given(
    st.booleans(),
    st.booleans(),
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.sampled_from([None, *State]),
    st.booleans(),
)
def test_only_one_that_is_unused_in_time_and_where_the_section_has_no_holder_is_good(
    used: bool, withdrawn: bool, ends: int, now: int, state: State | None, needs: bool
) -> None:
    found = standing(used=used, withdrawn=withdrawn, expires_at_ms=ends, now_ms=now, state=state, needs_delivery=needs)
    open_states = {State.DELIVERED, State.QUERIED} | (set() if needs else {State.ROUTED})
    assert (found is Standing.GOOD) == (not used and not withdrawn and now < ends and state in open_states)
