"""Routing: the first rule that fits, what happens where its agency is not there, and what no rule can do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.handover.routing import Choice, Facts, Rule, Rules, covers, decide, may_pass_on
from exchange.schema.agency_names import kind_of
from exchange.schema.catalogue import default_catalogue
from exchange.schema.vocabulary import AgeBand, MoveType

CATALOGUE = default_catalogue()
CAMDEN, ENFIELD = "E09000007", "E09000010"
FACTS = Facts(CAMDEN, MoveType.URGENT, AgeBand.UNDER_18)
READERS = frozenset({"housing", "police", "coordinator"})
SOUTH_FIRST = Rule(to=("housing/south", "housing/north"))


def here(*names: str, unavailable: tuple[str, ...] = ()) -> dict[str, bool]:
    return {name: name not in unavailable for name in (*names, *unavailable)}


@pytest.mark.parametrize(
    ("agencies", "choice"),
    [
        (here(), Choice(None, "no agency of kind housing is registered")),
        (here("police"), Choice(None, "no agency of kind housing is registered")),
        (here("housing"), Choice("housing")),
        (here("housing/south"), Choice("housing/south")),
        (here("housing", "housing/south"), Choice("housing")),
        (here("housing/north", "housing/south"), Choice(None, "no rule says which agency of kind housing")),
        (here(unavailable=("housing",)), Choice("housing")),
    ],
)
def test_without_rules_the_agency_of_the_bare_kind_or_the_only_one_gets_it(
    agencies: dict[str, bool], choice: Choice
) -> None:
    assert decide(Rules(), FACTS, "housing", "housing", READERS, agencies) == choice


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (Rule(to=("housing/south",)), True),
        (Rule(to=("housing/south",), sections=("housing",)), True),
        (Rule(to=("housing/south",), sections=("housing.address",)), False),
        (Rule(to=("housing/south",), sections=("dwp", "housing")), True),
        (Rule(to=("housing/south",), moves=(MoveType.URGENT,)), True),
        (Rule(to=("housing/south",), moves=(MoveType.PLANNED, MoveType.TEMPORARY)), False),
        (Rule(to=("housing/south",), age_bands=(AgeBand.UNDER_18,)), True),
        (Rule(to=("housing/south",), age_bands=(AgeBand.FROM_25,)), False),
        (Rule(to=("housing/south",), areas=(CAMDEN,)), True),
        (Rule(to=("housing/south",), areas=(ENFIELD,)), False),
        (Rule(to=("housing/south",), areas=(CAMDEN,), moves=(MoveType.PLANNED,)), False),
        (Rule(to=("police/gangs",)), False),
    ],
)
def test_a_rule_is_for_what_all_its_conditions_fit(rule: Rule, fits: bool) -> None:
    agencies = here("housing", "housing/south", "police/gangs")
    choice = decide(Rules(rule=(rule,)), FACTS, "housing", "housing", READERS, agencies)
    assert choice == (Choice("housing/south", rule=1) if fits else Choice("housing"))


@pytest.mark.parametrize(
    "rule", [Rule(to=("housing/south",), moves=tuple(MoveType)), Rule(to=("housing/south",), age_bands=tuple(AgeBand))]
)
def test_a_rule_that_asks_what_the_node_cannot_read_does_not_fit(rule: Rule) -> None:
    agencies = here("housing", "housing/south")
    assert decide(Rules(rule=(rule,)), Facts(CAMDEN), "housing", "housing", READERS, agencies) == Choice("housing")


def test_the_first_rule_that_fits_wins_and_a_rule_for_another_kind_is_passed_over() -> None:
    rules = Rules(rule=(Rule(to=("police/gangs",)), Rule(to=("housing/north",)), Rule(to=("housing/south",))))
    agencies = here("housing/north", "housing/south", "police/gangs")
    assert decide(rules, FACTS, "subject", "housing", READERS, agencies) == Choice("housing/north", rule=2)
    assert decide(rules, FACTS, "subject", "police", READERS, agencies) == Choice("police/gangs", rule=1)


@pytest.mark.parametrize(
    ("agencies", "fallback", "choice"),
    [
        (here("housing/south", "housing/north"), None, Choice("housing/south", rule=1)),
        (here("housing/north", unavailable=("housing/south",)), None, Choice("housing/north", rule=1)),
        (here("housing/north"), None, Choice("housing/north", rule=1)),
        (here(unavailable=("housing/south", "housing/north")), None, Choice("housing/south", rule=1)),
        (
            here("housing/duty", unavailable=("housing/south", "housing/north")),
            "housing/duty",
            Choice("housing/duty", rule=1),
        ),
        # Nobody whom the rule names is there: the agency of the bare kind was not asked for, so that it gets nothing.
        (here("housing"), None, Choice(None, "no agency housing/south or housing/north is registered", 1)),
        (here("housing"), "housing", Choice("housing", rule=1)),
    ],
)
def test_the_next_one_has_the_turn_of_an_agency_that_is_not_available(
    agencies: dict[str, bool], fallback: str | None, choice: Choice
) -> None:
    rules = Rules(rule=(SOUTH_FIRST,), fallback=(fallback,) if fallback else ())
    assert decide(rules, FACTS, "housing", "housing", READERS, agencies) == choice


def test_what_is_sealed_to_the_key_of_a_kind_goes_to_the_agency_that_has_it_whatever_a_rule_says() -> None:
    rules = Rules(rule=(SOUTH_FIRST,), single_point_of_contact="coordinator")
    sealed = Facts(CAMDEN, sealed=frozenset({"housing"}))
    agencies = here("housing/south", "coordinator", unavailable=("housing",))
    assert decide(rules, sealed, "housing", "housing", READERS, agencies) == Choice("housing")
    del agencies["housing"]
    choice = decide(rules, sealed, "housing", "housing", READERS, agencies)
    assert choice == Choice(None, "it is sealed to the key of agency housing")


@pytest.mark.parametrize(
    ("readers", "agencies", "agency"),
    [
        (READERS, here("coordinator", "housing"), "coordinator"),
        ({"housing", "police"}, here("coordinator", "housing"), "housing"),
        (READERS, here("housing", unavailable=("coordinator",)), "housing"),
        (READERS, here("housing"), "housing"),
        (READERS, here(unavailable=("coordinator", "housing")), "coordinator"),
    ],
)
def test_the_point_of_contact_gets_what_it_may_read_and_the_rest_goes_where_it_goes(
    readers: frozenset[str], agencies: dict[str, bool], agency: str
) -> None:
    rules = Rules(single_point_of_contact="coordinator")
    assert decide(rules, FACTS, "subject", "housing", readers, agencies).agency == agency


@pytest.mark.parametrize(
    ("name", "section", "does"),
    [
        ("housing", "housing", True),
        ("housing", "housing.address", True),
        ("housing.address", "housing", False),
        ("injunction.condition", "injunction.condition-3", True),
        ("injunction", "injunction.condition-3", True),
        ("injunction.condition-3", "injunction.condition-30", False),
        ("health", "health-visitor", False),
        ("sub", "subject", False),
    ],
)
def test_a_name_covers_the_section_and_its_parts(name: str, section: str, does: bool) -> None:
    assert covers(name, section) is does


@pytest.mark.parametrize(
    ("rules", "name", "may"),
    [
        (Rules(), "housing", False),
        (Rules(rule=(SOUTH_FIRST,)), "housing/south", True),
        (Rules(rule=(SOUTH_FIRST,)), "housing", False),
        (Rules(rule=(Rule(to=("housing/south", "police")),)), "housing/south", False),
        (Rules(fallback=("police", "housing/duty")), "housing/south", True),
        (Rules(fallback=("police", "housing/duty")), "housing/duty", False),
        (Rules(single_point_of_contact="coordinator"), "coordinator", True),
        (Rules(single_point_of_contact="coordinator"), "housing", False),
    ],
)
def test_what_an_agency_has_may_pass_on_where_rules_name_another(rules: Rules, name: str, may: bool) -> None:
    assert may_pass_on(rules, name) is may


#: Few, so that they meet: one that reads little, one that reads much.
KINDS = ["coordinator", "dwp", "housing", "police"]
NAMES = st.builds(
    lambda kind, label: kind + label,
    st.sampled_from([*KINDS, "no-such-kind"]),
    st.sampled_from(["", "/south"]),
)
PARTS = [part.name for part in CATALOGUE.parts if not part.each] + ["injunction.condition-2", "urgent.action-1"]
SECTIONS = st.sampled_from([*PARTS, "no-such-section"])
RULES = st.builds(
    Rules,
    rule=st.lists(
        st.builds(
            Rule,
            to=st.lists(NAMES, min_size=1, max_size=4).map(tuple),
            sections=st.lists(SECTIONS, max_size=2).map(tuple),
            moves=st.lists(st.sampled_from(MoveType), max_size=2).map(tuple),
            age_bands=st.lists(st.sampled_from(AgeBand), max_size=2).map(tuple),
            areas=st.lists(st.sampled_from([CAMDEN, ENFIELD]), max_size=1).map(tuple),
        ),
        max_size=5,
    ).map(tuple),
    fallback=st.lists(NAMES, max_size=4).map(tuple),
    single_point_of_contact=st.one_of(st.just(""), NAMES),
)
ALL_FACTS = st.builds(
    Facts,
    from_area=st.sampled_from([CAMDEN, ENFIELD]),
    move=st.one_of(st.none(), st.sampled_from(MoveType)),
    age_band=st.one_of(st.none(), st.sampled_from(AgeBand)),
    sealed=st.frozensets(st.sampled_from(KINDS), max_size=3),
)
MANIFESTS = st.dictionaries(SECTIONS, st.frozensets(st.sampled_from(KINDS), min_size=1, max_size=4), max_size=6)
AGENCIES = st.dictionaries(NAMES, st.booleans(), max_size=12)


@given(RULES, ALL_FACTS, MANIFESTS, AGENCIES)
def test_whatever_the_rules_a_section_goes_to_one_agency_that_may_read_it_or_is_held_with_a_reason(
    rules: Rules, facts: Facts, manifest: dict[str, frozenset[str]], agencies: dict[str, bool]
) -> None:
    for section, named in manifest.items():
        readers = CATALOGUE.allowed(section) & named
        for kind in named:
            choice = decide(rules, facts, section, kind, readers, agencies)
            assert (choice.agency is None) == bool(choice.held), f"{section} for {kind}: {choice}"
            if choice.agency is not None:
                assert choice.agency in agencies, f"{section} for {kind} goes to nobody: {choice}"
                assert kind_of(choice.agency) in CATALOGUE.allowed(section), f"the catalogue denies {section}: {choice}"
                assert kind_of(choice.agency) in named, f"the manifest does not give {section}: {choice}"
                contact = kind_of(rules.single_point_of_contact)
                assert kind_of(choice.agency) in (kind, contact), f"{section} for {kind}: {choice}"
            if kind in facts.sealed:
                assert choice.agency in (None, kind), f"{section} is sealed to {kind}: {choice}"
