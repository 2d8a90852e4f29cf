"""What is said of routing rules before anything is routed by them, and what other rules would do."""

import pytest

from exchange.handover.routing import Choice, Facts, Rule, Rules
from exchange.handover.routing_review import doubts, mistakes
from exchange.handover.routing_trial import Arrived, Trial
from exchange.schema.catalogue import default_catalogue
from exchange.schema.vocabulary import AgeBand, MoveType

CATALOGUE = default_catalogue()
SOUTH, NORTH = "housing/south", "housing/north"
ALL_MOVES = tuple(MoveType)
UNPLACED = (
    "what no rule places for agencies of kind housing is held: there are housing/north, housing/south, and no housing"
)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (Rules(), []),
        (
            Rules(rule=(Rule(to=("housng/south",)),)),
            ["rule[0].to: there is no agency kind 'housng'; did you mean 'housing'?"],
        ),
        (
            Rules(rule=(Rule(to=(SOUTH,)), Rule(to=(SOUTH,), sections=("housing.adress",)))),
            ["rule[1].sections: there is no section 'housing.adress'; did you mean 'housing.address'?"],
        ),
        (Rules(rule=(Rule(to=(SOUTH,), sections=("injunction", "injunction.condition-3")),)), []),
        (Rules(fallback=(SOUTH, "polise")), ["fallback: there is no agency kind 'polise'; did you mean 'police'?"]),
        (
            Rules(single_point_of_contact="co-ordinator"),
            ["single_point_of_contact: there is no agency kind 'co-ordinator'; did you mean 'coordinator'?"],
        ),
    ],
)
def test_a_name_that_the_catalogue_does_not_have_is_a_mistake(rules: Rules, said: list[str]) -> None:
    found = list(mistakes(rules, CATALOGUE))
    assert [f"{finding.path}: {finding.message}" for finding in found] == said
    assert {finding.severity for finding in found} <= {"error"}


@pytest.mark.parametrize(
    ("rules", "here", "said"),
    [
        (Rules(), ["housing", "police"], []),
        (Rules(), [SOUTH], []),
        (
            Rules(),
            [NORTH, SOUTH],
            [
                f"rule: {UNPLACED}",
                "rule: agency housing/north gets nothing: no rule names it",
                "rule: agency housing/south gets nothing: no rule names it",
            ],
        ),
        (Rules(rule=(Rule(to=(SOUTH, NORTH)),)), [NORTH, SOUTH], []),
        (Rules(), ["housing", SOUTH], ["rule: agency housing/south gets nothing: no rule names it"]),
        (Rules(rule=(Rule(to=(SOUTH,)),)), ["housing"], ["rule[0].to: no agency housing/south is registered"]),
        (Rules(fallback=(SOUTH,)), [], ["fallback: no agency housing/south is registered"]),
        (
            Rules(rule=(Rule(to=("dwp",), sections=("risk", "police")),)),
            ["dwp"],
            [],  # the jobcentre reads what staff should know for their safety, which is a part of `risk`
        ),
        (
            Rules(rule=(Rule(to=("dwp",), sections=("police", "associates")),)),
            ["dwp"],
            ["rule[0]: agencies of kind dwp may read none of these sections: this rule sends them nothing"],
        ),
    ],
)
def test_what_comes_to_nothing_is_doubtful(rules: Rules, here: list[str], said: list[str]) -> None:
    found = list(doubts(rules, CATALOGUE, here))
    assert [f"{finding.path}: {finding.message}" for finding in found] == said
    assert {finding.severity for finding in found} <= {"warning"}


@pytest.mark.parametrize(
    ("earlier", "later", "is_in_vain"),
    [
        (Rule(to=(SOUTH,)), Rule(to=(NORTH,)), True),
        (Rule(to=(SOUTH,)), Rule(to=(NORTH,), moves=(MoveType.URGENT,)), True),
        (Rule(to=(SOUTH,), moves=(MoveType.URGENT,)), Rule(to=(NORTH,)), False),
        # Of a move that the node cannot read, no list of moves knows.
        (Rule(to=(SOUTH,), moves=ALL_MOVES), Rule(to=(NORTH,)), False),
        (Rule(to=(SOUTH,), sections=("housing",)), Rule(to=(NORTH,), sections=("housing.address",)), True),
        (Rule(to=(SOUTH,), sections=("housing.address",)), Rule(to=(NORTH,), sections=("housing",)), False),
        (Rule(to=("police/gangs",)), Rule(to=(NORTH,)), False),
        (
            Rule(to=(SOUTH,), age_bands=(AgeBand.UNDER_18, AgeBand.FROM_25)),
            Rule(to=(NORTH,), age_bands=(AgeBand.UNDER_18,), areas=("E09000007",)),
            True,
        ),
    ],
)
def test_a_rule_behind_one_that_takes_all_of_it_is_named(earlier: Rule, later: Rule, is_in_vain: bool) -> None:
    found = list(doubts(Rules(rule=(earlier, later)), CATALOGUE, [*earlier.to, *later.to]))
    paths = [finding.path for finding in found if "comes first" in finding.message]
    assert paths == (["rule[1]"] if is_in_vain else [])


def test_a_trial_counts_where_everything_would_go_and_what_would_change() -> None:
    arrived = Arrived(
        "00000000-0000-4000-8000-000000000001",
        Facts("E09000007", MoveType.URGENT),
        (("housing", ("housing",)), ("subject", ("housing", "dwp")), ("police", ("police",))),
    )
    here = {"housing": True, SOUTH: True, "police": True}
    trial = Trial()
    new = Rules(rule=(Rule(to=(SOUTH,), sections=("housing",), moves=(MoveType.URGENT,)),))
    trial.add(arrived, new, Rules(), here)
    assert (trial.messages, trial.sections, trial.unread) == (1, 4, 0)
    nobody = Choice(None, "no agency of kind dwp is registered")
    assert trial.now == {Choice("housing"): 2, Choice("police"): 1, nobody: 1}
    assert trial.then == {Choice("housing"): 1, Choice(SOUTH): 1, Choice("police"): 1, nobody: 1}
    (change,) = trial.changes
    assert (change.section, change.kind, change.now, change.then) == (
        "housing",
        "housing",
        Choice("housing"),
        Choice(SOUTH, rule=1),
    )
