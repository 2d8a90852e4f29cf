"""What is wrong with routing rules, and what is doubtful about them, before anything is routed by them. Pure.

* An error is a rule that cannot mean anything: the node does not start with it.
* A warning is what may be meant so, or will be right when an agency is registered: it is said, and the node runs.
"""

import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence

from exchange.handover.routing import Rule, Rules, covers, usual
from exchange.schema.agency_names import kind_of
from exchange.schema.catalogue import Catalogue
from exchange.schema.errors import Finding


def mistakes(rules: Rules, catalogue: Catalogue) -> Iterator[Finding]:
    """Names that the catalogue does not have."""
    kinds = catalogue.kinds()
    sections = {name for part in catalogue.parts for name in (part.name, part.section)}
    for path, name in _named(rules):
        yield from _known(path, "agency kind", kind_of(name), kinds)
    for at, rule in enumerate(rules.rule):
        for section in rule.sections:
            if not catalogue.allowed(section):
                yield from _known(f"rule[{at}].sections", "section", section, sections)


def _named(rules: Rules) -> Iterator[tuple[str, str]]:
    """Every agency that the rules name, and where."""
    if rules.single_point_of_contact:
        yield "single_point_of_contact", rules.single_point_of_contact
    for at, rule in enumerate(rules.rule):
        yield from ((f"rule[{at}].to", name) for name in rule.to)
    yield from (("fallback", name) for name in rules.fallback)


def _known(path: str, what: str, name: str, names: Collection[str]) -> Iterator[Finding]:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        more = f"; did you mean {near[0]!r}?" if near else ""
        yield Finding("error", path, f"there is no {what} {name!r}{more}")


def doubts(rules: Rules, catalogue: Catalogue, here: Collection[str]) -> Iterator[Finding]:
    """What of the rules comes to nothing, with the agencies that are registered."""
    for path, name in _named(rules):
        if name not in here:
            yield Finding("warning", path, f"no agency {name} is registered")
    for at, rule in enumerate(rules.rule):
        yield from _rule_in_vain(at, rule, rules.rule[:at], catalogue)
    named = {name for _, name in _named(rules)}
    usually = {kind: usual(kind, here) for kind in sorted({kind_of(name) for name in here})}
    for kind, found in usually.items():
        if not found and not any(_fits_all(rule) and rule.of_kind(kind) for rule in rules.rule):
            several = ", ".join(name for name in here if kind_of(name) == kind)
            text = f"what no rule places for agencies of kind {kind} is held: there are {several}, and no {kind}"
            yield Finding("warning", "rule", text)
    for name in here:
        if name not in named and name not in usually[kind_of(name)]:
            yield Finding("warning", "rule", f"agency {name} gets nothing: no rule names it")


def _rule_in_vain(at: int, rule: Rule, before: Sequence[Rule], catalogue: Catalogue) -> Iterator[Finding]:
    readers = {
        kind
        for part in catalogue.parts
        if not rule.sections or any(_touch(name, part.name) for name in rule.sections)
        for kind in part.readers
    }
    for kind in dict.fromkeys(kind_of(name) for name in rule.to):
        if kind in catalogue.kinds() and kind not in readers:
            text = f"agencies of kind {kind} may read none of these sections: this rule sends them nothing"
            yield Finding("warning", f"rule[{at}]", text)
            continue
        earlier = next(
            (number for number, other in enumerate(before, 1) if other.of_kind(kind) and _shadows(other, rule)), None
        )
        if earlier is not None:
            text = f"this rule never places anything for agencies of kind {kind}: rule {earlier} comes first"
            yield Finding("warning", f"rule[{at}]", text)


def _touch(name: str, part: str) -> bool:
    """Whether a name in a rule covers something of a part of the catalogue, which may stand for several in a form."""
    return covers(name, part) or covers(part, name)


def _fits_all(rule: Rule) -> bool:
    return not (rule.sections or rule.moves or rule.age_bands or rule.areas)


def _shadows(earlier: Rule, later: Rule) -> bool:
    """Whether an earlier rule fits whatever a later one fits."""
    sections = not earlier.sections or (
        bool(later.sections) and all(any(covers(name, one) for name in earlier.sections) for one in later.sections)
    )
    return (
        sections
        and _within(later.moves, earlier.moves)
        and _within(later.age_bands, earlier.age_bands)
        and _within(later.areas, earlier.areas)
    )


def _within(few: Iterable[object], many: Collection[object]) -> bool:
    """Whether what one condition lets through passes the other; without entries it lets everything through."""
    wanted = set(few)
    return not many or (bool(wanted) and wanted.issubset(many))
