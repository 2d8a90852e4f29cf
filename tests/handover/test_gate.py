"""Nothing leaves without what the gate wants, whatever the form, the agreements, the policy and the people."""

import dataclasses
from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.handover.agreement import ENDS_SOON, IN_FORCE, OTHERS, Agreement, Standing
from exchange.handover.form_facts import facts_of
from exchange.handover.gate import (
    RULES,
    Decision,
    Disclosed,
    Effect,
    Facts,
    Missing,
    Need,
    Override,
    Policy,
    Reason,
    decide,
)
from exchange.schema.catalogue import default_catalogue
from exchange.schema.errors import Finding
from exchange.schema.form import Form
from exchange.schema.legal import GATEWAYS, REGIMES, Basis, Gateway, Regime, StatedBasis, may_carry
from exchange.schema.split import split
from tests.schema.forms import decode, example, splittable

TODAY = date(2026, 11, 23)
AREA = "E09000010"
CATALOGUE = default_catalogue()
KINDS = sorted(CATALOGUE.kinds())
REASONS: tuple[Reason, ...] = ("urgent", "under-18", "associates")
GENERAL = Basis(Regime.LAW_ENFORCEMENT, Gateway.CRIME_AND_DISORDER)
VIOLENCE = Basis(Regime.LAW_ENFORCEMENT, Gateway.SERIOUS_VIOLENCE)
CHILDREN = Basis(Regime.UK_GDPR, Gateway.CHILDREN_COOPERATION)
REQUIRED, ADVISED = Policy(agreements_required=True), Policy(agreements_required=False)


def agreement(**changes: object) -> Agreement:
    made = Agreement("agreement-1", AREA, frozenset(), {OTHERS: GENERAL}, TODAY, TODAY + timedelta(days=365))
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def part(name: str, *readers: str) -> Disclosed:
    entry = CATALOGUE.part(name)
    assert entry is not None
    return Disclosed(name, entry.name, entry.section, entry.origin, readers)


def facts(**changes: object) -> Facts:
    made = Facts(
        area=AREA,
        parts=(part("risk", "police", "probation"), part("health", "health")),
        stated=(),
        marked=True,
        errors=(),
        reasons=frozenset(),
        emergency=False,
        sent_by="ada",
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def needs(decision: Decision) -> list[Need]:
    return [item.need for item in decision.missing]


def only(decision: Decision) -> Missing:
    assert len(decision.missing) == 1, decision.missing
    return decision.missing[0]


# The table


def test_a_form_with_all_that_is_wanted_passes() -> None:
    decision = decide(facts(), [agreement()], REQUIRED, TODAY)
    assert decision.passes
    assert decision.missing == ()
    assert {(ground.agreement, ground.basis) for ground in decision.grounds.values()} == {("agreement-1", GENERAL)}


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ([], "no sharing agreement with E09000010 is on file"),
        ([agreement(area="E09000012")], "no sharing agreement with E09000010 is on file"),
        (
            [agreement(ends_on=TODAY - timedelta(days=1), starts_on=TODAY - timedelta(days=9))],
            "no sharing agreement with E09000010 is in force: agreement-1 has expired",
        ),
        ([agreement(ended=True)], "no sharing agreement with E09000010 is in force: agreement-1 has expired"),
        (
            [agreement(starts_on=TODAY + timedelta(days=1))],
            "no sharing agreement with E09000010 is in force: agreement-1 begins on 2026-11-24",
        ),
        (
            [agreement(kinds=frozenset({"police"}))],
            "no sharing agreement in force with E09000010 covers health, probation",
        ),
    ],
    ids=["none", "another borough", "expired", "ended", "not begun", "not for all"],
)
def test_what_no_agreement_covers_is_refused_where_they_are_required_and_told_where_they_are_advised(
    present: Sequence[Agreement], message: str
) -> None:
    for policy, effect in ((REQUIRED, Effect.REFUSE), (ADVISED, Effect.WARN)):
        decision = decide(facts(), present, policy, TODAY)
        found = [item for item in decision.missing if item.need is Need.AGREEMENT]
        assert [(item.effect, item.message) for item in found] == [(effect, message)]
        assert decision.passes is (policy is ADVISED)


def test_a_section_without_a_basis_is_named() -> None:
    police_alone = agreement(bases={"police": GENERAL})
    found = only(decide(facts(), [police_alone], REQUIRED, TODAY))
    assert (found.need, found.message) == (Need.BASIS, "there is no legal basis for risk, health")


def test_the_form_states_a_basis_for_a_section_or_a_part_of_it() -> None:
    stated = (
        StatedBasis(section="subject", regime=Regime.UK_GDPR, gateway=Gateway.LOCALISM),
        StatedBasis(section="subject.nhs", regime=Regime.UK_GDPR, gateway=Gateway.HEALTH_AND_CARE),
    )
    parts = (part("subject", "dwp"), part("subject.nhs", "health"))
    decision = decide(facts(parts=parts, stated=stated), [agreement()], REQUIRED, TODAY)
    assert decision.passes
    assert str(decision.grounds["subject", "dwp"].basis) == "uk-gdpr/localism-act-s1"
    assert str(decision.grounds["subject.nhs", "health"].basis) == "uk-gdpr/health-and-care-s251b"


@pytest.mark.parametrize("name", ["health", "subject.nhs", "childrens-social-care", "childrens-social-care.summary"])
@pytest.mark.parametrize("policy", [REQUIRED, ADVISED], ids=["required", "advised"])
def test_what_health_and_social_care_recorded_does_not_go_through_the_gateway_for_serious_violence(
    name: str, policy: Policy
) -> None:
    given = facts(parts=(part(name, "police"), part("risk", "police")), emergency=True)
    decision = decide(given, [agreement(bases={OTHERS: VIOLENCE})], policy, TODAY, override=Override("ada", "tonight"))
    assert not decision.passes
    found = [item for item in decision.missing if item.need is Need.GATEWAY]
    assert [(item.path, item.effect) for item in found] == [(name, Effect.REFUSE)]
    assert "section 16" in found[0].message


def test_another_agreement_whose_gateway_may_carry_it_is_taken() -> None:
    older = agreement(id="agreement-0", bases={OTHERS: CHILDREN}, starts_on=TODAY - timedelta(days=9))
    newer = agreement(bases={OTHERS: VIOLENCE})
    decision = decide(facts(), [newer, older], REQUIRED, TODAY)
    assert decision.passes
    assert decision.grounds["health", "health"].agreement == "agreement-0"
    assert decision.grounds["risk", "police"].agreement == "agreement-1"


def test_an_unmarked_form_is_told_or_refused() -> None:
    assert only(decide(facts(marked=False), [agreement()], REQUIRED, TODAY)).effect is Effect.REFUSE
    assert only(decide(facts(marked=False), [agreement()], ADVISED, TODAY)).effect is Effect.WARN


@pytest.mark.parametrize("reason", REASONS)
def test_a_second_person_is_another_than_the_first(reason: Reason) -> None:
    policy = Policy(agreements_required=True, second_approver=frozenset({reason}))
    given = facts(reasons=frozenset(REASONS))
    for approvals, passes in (((), False), (("ada",), False), (("",), False), (("ben",), True), (("ada", "ben"), True)):
        decision = decide(given, [agreement()], policy, TODAY, approvals)
        assert (decision.passes, decision.awaits) == (passes, not passes)
    assert decide(facts(), [agreement()], policy, TODAY).passes, "nobody is wanted for another form"


def test_an_override_lifts_agreements_bases_and_approval_and_says_so() -> None:
    policy = Policy(agreements_required=True, second_approver=frozenset({"urgent"}))
    given = facts(reasons=frozenset({"urgent"}), emergency=True)
    decision = decide(given, [], policy, TODAY, override=Override("ada", "a threat tonight"))
    assert decision.passes
    assert [(item.need, item.effect) for item in decision.missing] == [
        (Need.AGREEMENT, Effect.LIFTED),
        (Need.BASIS, Effect.LIFTED),
        (Need.APPROVAL, Effect.LIFTED),
    ]


@pytest.mark.parametrize(
    ("by", "reason", "emergency"), [("", "why", True), ("ada", " ", True), ("ada", "why", False)], ids=repr
)
def test_an_override_has_a_name_and_a_reason_and_is_for_emergencies(by: str, reason: str, emergency: bool) -> None:
    decision = decide(facts(emergency=emergency), [], REQUIRED, TODAY, override=Override(by, reason))
    assert {item.need for item in decision.of(Effect.REFUSE)} == {Need.AGREEMENT, Need.BASIS, Need.OVERRIDE}
    assert not decision.of(Effect.LIFTED)


def test_an_override_that_was_not_needed_is_told_and_lifts_nothing() -> None:
    decision = decide(facts(emergency=True), [agreement()], REQUIRED, TODAY, override=Override("ada", "why"))
    assert decision.passes
    assert (only(decision).need, only(decision).effect) == (Need.OVERRIDE, Effect.WARN)


def test_the_table_has_a_rule_for_each_need_and_lifts_three() -> None:
    assert [rule.need for rule in RULES] == list(Need)
    assert {rule.need for rule in RULES if rule.is_lifted} == {Need.AGREEMENT, Need.BASIS, Need.APPROVAL}
    assert GATEWAYS.keys() == set(Gateway)
    assert REGIMES.keys() == set(Regime)


@pytest.mark.parametrize(
    ("day", "standing"),
    [
        (TODAY - timedelta(days=1), Standing.FUTURE),
        (TODAY, Standing.ACTIVE),
        (TODAY + timedelta(days=365) - ENDS_SOON, Standing.ACTIVE),
        (TODAY + timedelta(days=366) - ENDS_SOON, Standing.ENDING),
        (TODAY + timedelta(days=365), Standing.ENDING),
        (TODAY + timedelta(days=366), Standing.EXPIRED),
    ],
)
def test_an_agreement_stands_from_its_first_day_to_its_last(day: date, standing: Standing) -> None:
    assert agreement().standing(day) is standing
    assert agreement(ended=True).standing(day) is Standing.EXPIRED


# Whatever the inputs

_days = st.integers(-40, 40).map(lambda days: TODAY + timedelta(days=days))
_bases = st.builds(Basis, st.sampled_from(Regime), st.sampled_from(Gateway))
_agreements = st.lists(
    st.builds(
        Agreement,
        id=st.uuids().map(str),
        area=st.sampled_from([AREA, AREA, "E09000012"]),
        kinds=st.frozensets(st.sampled_from(KINDS)),
        bases=st.dictionaries(st.sampled_from([OTHERS, *KINDS]), _bases, max_size=4),
        starts_on=_days,
        ends_on=_days,
        ended=st.booleans(),
    ),
    max_size=4,
)
_stated = st.lists(
    st.builds(
        StatedBasis,
        section=st.sampled_from(["risk", "health", "subject", "subject.nhs", "childrens-social-care"]),
        regime=st.sampled_from(Regime),
        gateway=st.sampled_from(Gateway),
    ),
    max_size=3,
).map(tuple)
_parts = st.lists(
    st.builds(
        lambda name, readers: part(name, *readers),
        st.sampled_from([part.name for part in CATALOGUE.parts]),
        st.sets(st.sampled_from(KINDS), min_size=1),
    ),
    max_size=6,
    unique_by=lambda found: found.name,
).map(tuple)
_people = st.sampled_from(["ada", "ben", "cem", ""])
_facts = st.builds(
    Facts,
    area=st.just(AREA),
    parts=_parts,
    stated=_stated,
    marked=st.booleans(),
    errors=st.sampled_from([(), (Finding("error", "subject", "is wrong"),)]),
    reasons=st.frozensets(st.sampled_from(REASONS)),
    emergency=st.booleans(),
    sent_by=_people,
)
_policies = st.builds(Policy, st.booleans(), st.frozensets(st.sampled_from(REASONS)))
_overrides = st.none() | st.builds(Override, _people, st.sampled_from(["", "a threat tonight"]))
_everything = (_facts, _agreements, _policies, st.lists(_people, max_size=3), _overrides)


@given(*_everything)
def test_whatever_passes_has_what_the_gate_wants(
    given_facts: Facts, agreements: list[Agreement], policy: Policy, approvals: list[str], override: Override | None
) -> None:
    decision = decide(given_facts, agreements, policy, TODAY, approvals, override)
    if not decision.passes:
        return
    in_emergency = (
        override is not None and given_facts.emergency and override.by.strip() != "" and override.reason.strip() != ""
    )
    may_lack = in_emergency or not policy.agreements_required
    by_id = {one.id: one for one in agreements}
    for one in given_facts.parts:
        for kind in one.readers:
            ground = decision.grounds[one.name, kind]
            assert may_lack or (ground.agreement is not None and ground.basis is not None)
            if ground.agreement is not None:
                under = by_id[ground.agreement]
                assert under.area == given_facts.area
                assert under.covers(kind)
                assert under.standing(TODAY) in IN_FORCE
            # Nothing lifts this, in either mode.
            assert ground.basis is None or may_carry(ground.basis.gateway, one.origin)
    assert not given_facts.errors
    assert given_facts.marked or not policy.agreements_required
    if policy.second_approver & given_facts.reasons:
        assert in_emergency or any(who and who != given_facts.sent_by for who in approvals)


@given(*_everything)
def test_whatever_is_missing_says_where_and_what(
    given_facts: Facts, agreements: list[Agreement], policy: Policy, approvals: list[str], override: Override | None
) -> None:
    decision = decide(given_facts, agreements, policy, TODAY, approvals, override)
    assert all(item.path and item.message for item in decision.missing)
    assert decision.passes == all(item.effect in (Effect.WARN, Effect.LIFTED) for item in decision.missing)
    assert not (decision.awaits and decision.passes)
    if override is None:
        assert not decision.of(Effect.LIFTED)
    lacking = {pair for pair, ground in decision.grounds.items() if ground.agreement is None}
    assert bool(lacking) == (Need.AGREEMENT in needs(decision)), "what is missing is told, where it only warns too"


@given(*_everything)
def test_more_agreements_of_the_same_kind_close_no_gate(
    given_facts: Facts, agreements: list[Agreement], policy: Policy, approvals: list[str], override: Override | None
) -> None:
    before = decide(given_facts, agreements, policy, TODAY, approvals, override)
    older = agreement(id="older", starts_on=TODAY - timedelta(days=90))
    after = decide(given_facts, [*agreements, older], policy, TODAY, approvals, override)
    assert after.passes or not before.passes


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(splittable)
def test_the_facts_of_a_form_name_every_part_and_reader(form: Form) -> None:
    parts = split(form, CATALOGUE)
    found = facts_of(form, parts, CATALOGUE, (), "ada")
    assert [(one.name, one.readers) for one in found.parts] == [(one.name, one.readers) for one in parts]
    assert ("associates" in found.reasons) == (form.associates is not None)
    assert {one.origin for one in found.parts if one.section == "health"} <= {"health"}


def test_the_urgent_example_is_an_emergency_and_the_planned_one_is_none() -> None:
    for name, is_one in (("urgent.json", True), ("case-study-j.json", False)):
        form = decode(example(name))
        assert facts_of(form, split(form, CATALOGUE), CATALOGUE, (), "ada").emergency is is_one
    threatened = example("case-study-j.json")
    threatened["urgent"] = example("urgent.json")["urgent"] | {"imminent": True}
    form = decode(threatened)
    assert facts_of(form, split(form, CATALOGUE), CATALOGUE, (), "ada").emergency
