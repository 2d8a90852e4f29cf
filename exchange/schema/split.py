"""Split a form into parts that have one readership each. Nobody can add a reader: the catalogue decides.

* A reader whom the form names and the catalogue does not allow is refused, never dropped in silence.
* Whoever reads a whole list gets no copy of a single entry of it.
* Whoever reads the referral reads its marking: where the form sets none, it is the stricter one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from exchange.crypto.names import SectionName
from exchange.schema.catalogue import AgencyKind, Catalogue, CataloguePart
from exchange.schema.errors import Finding, FormInvalid
from exchange.schema.form import SECTION_FIELDS, Form, form_to_builtins
from exchange.schema.vocabulary import Marking

#: What a section says where the form does not.
_UNSET: Final = {"referral": {"marking": Marking.OFFICIAL_SENSITIVE.value}}


@dataclass(frozen=True, slots=True, repr=False)
class FormPart:
    """A part of a form: its content as JSON values, and who may read it, in the catalogue's order."""

    name: SectionName
    readers: tuple[AgencyKind, ...]
    content: dict[str, Any]


def split(form: Form, catalogue: Catalogue) -> tuple[FormPart, ...]:
    """The parts of `form` that have content and somebody to read them.

    Raises:
        FormInvalid: the form names a reader whom the catalogue does not allow.
    """
    refused = tuple(readers_refused(form, catalogue))
    if refused:
        raise FormInvalid(refused)
    parts: list[FormPart] = []
    contents: dict[str, dict[str, Any]] = {}
    for entry in catalogue.parts:
        section = getattr(form, SECTION_FIELDS[entry.section])
        if section is None:
            continue
        if entry.section not in contents:
            contents[entry.section] = _UNSET.get(entry.section, {}) | form_to_builtins(section)
        content = contents[entry.section]
        if entry.each is not None:
            parts.extend(_one_for_each(entry, content))
        else:
            chosen = {field: content[field] for field in entry.fields if field in content}
            readers = _readers(entry, content)
            if chosen and readers:
                parts.append(FormPart(SectionName(entry.name), readers, chosen))
    return tuple(parts)


def _one_for_each(entry: CataloguePart, content: dict[str, Any]) -> list[FormPart]:
    items = content.get(entry.each or "", ())
    parts = []
    for number, item in enumerate(items, start=1):
        readers = _readers(entry, item)
        chosen = {field: item[field] for field in entry.fields if field in item}
        if chosen and readers:
            parts.append(FormPart(SectionName(f"{entry.name}-{item.get('number', number)}"), readers, chosen))
    return parts


def readers_refused(form: Form, catalogue: Catalogue) -> Iterator[Finding]:
    """Findings for the readers that the form names and the catalogue does not allow."""
    for entry, allowed in catalogue.named_in_forms:
        section = getattr(form, SECTION_FIELDS[entry.section])
        if section is None:
            continue
        items = getattr(section, entry.each) if entry.each else (section,)
        for number, item in enumerate(items):
            named = getattr(item, entry.readers_from or "") or ()
            if not ({named} if isinstance(named, str) else set(named)) <= allowed:
                place = f"{entry.section}.{entry.each}[{number}]" if entry.each else entry.section
                yield Finding(
                    "error", f"{place}.{entry.readers_from}", "the catalogue does not let this agency read it"
                )


def _readers(entry: CataloguePart, content: dict[str, Any]) -> tuple[AgencyKind, ...]:
    if entry.readers_from is None:
        return entry.readers
    named = content.get(entry.readers_from, ())
    chosen = {named} if isinstance(named, str) else set(named)
    return tuple(kind for kind in entry.readers if kind in chosen or kind in entry.always)


def opened_by_node(parts: tuple[FormPart, ...], with_own_key: frozenset[AgencyKind]) -> tuple[SectionName, ...]:
    """The parts that the receiving node will open: those with a reader that has no key of its own."""
    return tuple(part.name for part in parts if not with_own_key.issuperset(part.readers))


def preview(parts: tuple[FormPart, ...]) -> dict[AgencyKind, tuple[SectionName, ...]]:
    """What each agency kind would be able to read."""
    found: dict[AgencyKind, list[SectionName]] = {}
    for part in parts:
        for kind in part.readers:
            found.setdefault(kind, []).append(part.name)
    return {kind: tuple(names) for kind, names in sorted(found.items())}
