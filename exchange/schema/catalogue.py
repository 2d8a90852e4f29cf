"""The catalogue: which parts a form has, and which agency kinds may read each. It is data; this only reads it.

* Every field of every section stands in a part, unless it is what chooses the readers.
* Every reader is a kind that the catalogue defines.
"""

import difflib
import importlib.resources
import re
import tomllib
from functools import cache, cached_property
from typing import Any, Final, TypeAlias

import msgspec

from exchange.schema.errors import CatalogueInvalid
from exchange.schema.form import SECTION_FIELDS, Form
from exchange.schema.legal import PartOrigin
from exchange.schema.vocabulary import MoveType

AgencyKind: TypeAlias = str
_NUMBERED: Final = re.compile(r"-[0-9]+\Z")


class CatalogueAgency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of agency."""

    kind: AgencyKind
    name: str


class CataloguePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a section with one readership; the catalogue file explains the fields."""

    name: str
    section: str
    readers: tuple[AgencyKind, ...]
    fields: tuple[str, ...] = ()
    each: str | None = None
    readers_from: str | None = None
    always: tuple[AgencyKind, ...] = ()
    origin: PartOrigin | None = None


class RequiredSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section that moves of these types must have."""

    section: str
    moves: tuple[MoveType, ...]


class Catalogue(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True, rename={"agencies": "agency", "parts": "part"}
):
    """The whole catalogue, checked."""

    version: int
    agencies: tuple[CatalogueAgency, ...]
    parts: tuple[CataloguePart, ...]
    required: tuple[RequiredSection, ...] = ()

    def kinds(self) -> frozenset[AgencyKind]:
        """All agency kinds."""
        return frozenset(agency.kind for agency in self.agencies)

    def allowed(self, part_name: str) -> frozenset[AgencyKind]:
        """The kinds that may ever read the part of that name; none for a part that the catalogue does not know."""
        found = self.part(part_name)
        return self._by_name[found.name][1] if found is not None else frozenset()

    def part(self, part_name: str) -> CataloguePart | None:
        """The entry of the part of that name, which may be one of several and numbered."""
        found = self._by_name.get(part_name)
        if found is None:
            found = self._by_name.get(_NUMBERED.sub("", part_name))
            found = found if found is not None and found[0].each else None
        return found[0] if found is not None else None

    @cached_property
    def _by_name(self) -> dict[str, tuple[CataloguePart, frozenset[AgencyKind]]]:
        return {part.name: (part, frozenset(part.readers)) for part in self.parts}

    @cached_property
    def named_in_forms(self) -> tuple[tuple[CataloguePart, frozenset[AgencyKind]], ...]:
        """The parts whose readers a form names, and whom it may name: who reads the whole list reads each entry too."""
        found = []
        for part in self.parts:
            whole = {kind for other in self.parts if part.each and part.each in other.fields for kind in other.readers}
            if part.readers_from is not None:
                found.append((part, frozenset(whole | set(part.readers))))
        return tuple(found)


def load_catalogue(data: bytes) -> Catalogue:
    """Read a catalogue from TOML.

    Raises:
        CatalogueInvalid: not TOML, unknown keys, or names that nothing defines.
    """
    try:
        catalogue = msgspec.convert(tomllib.loads(data.decode()), Catalogue)
    except (ValueError, msgspec.ValidationError) as error:
        raise CatalogueInvalid(f"the catalogue cannot be read: {error}") from None
    except RecursionError:
        raise CatalogueInvalid("the catalogue cannot be read: a value is too deep") from None
    kinds = catalogue.kinds()
    sections = _section_fields()
    covered: set[tuple[str, str]] = set()
    for part in catalogue.parts:
        _known(part.section, sections, f"part {part.name}: section")
        fields = sections[part.section]
        if part.each is not None:
            _known(part.each, fields, f"part {part.name}: each")
            items = _item_fields(part.section, part.each)
            if not part.fields or part.readers_from is None:
                raise CatalogueInvalid(f"part {part.name}: one for each entry needs `fields` and `readers_from`")
            for field in (*part.fields, part.readers_from):
                _known(field, items, f"part {part.name}: field")
        else:
            for field in part.fields:
                _known(field, fields, f"part {part.name}: field")
                covered.add((part.section, field))
            if part.readers_from is not None:
                _known(part.readers_from, fields, f"part {part.name}: readers_from")
                covered.add((part.section, part.readers_from))
        for kind in (*part.readers, *part.always):
            _known(kind, kinds, f"part {part.name}: reader")
    for required in catalogue.required:
        _known(required.section, sections, "required: section")
    names = [part.name for part in catalogue.parts]
    if len(set(names)) != len(names):
        raise CatalogueInvalid("two parts have the same name")
    missing = {(section, field) for section, fields in sections.items() for field in fields} - covered
    if missing:
        section, field = min(missing)
        raise CatalogueInvalid(f"no part holds the field {section}.{field}")
    return catalogue


def _sections() -> dict[str, Any]:
    """The struct of each section."""
    return {
        field.encode_name: getattr(field.type, "__args__", (field.type,))[0]
        for field in msgspec.structs.fields(Form)
        if field.encode_name in SECTION_FIELDS
    }


def _section_fields() -> dict[str, set[str]]:
    return {name: {field.encode_name for field in msgspec.structs.fields(kind)} for name, kind in _sections().items()}


def _item_fields(section: str, each: str) -> set[str]:
    """The fields of what the list `each` is made of; none where it is not a list of structs."""
    section_type = msgspec.inspect.type_info(_sections()[section])
    assert isinstance(section_type, msgspec.inspect.StructType)  # noqa: S101 - every section is a struct
    item = next(getattr(field.type, "item_type", None) for field in section_type.fields if field.encode_name == each)
    return {field.encode_name for field in item.fields} if isinstance(item, msgspec.inspect.StructType) else set()


def _known(name: str, names: Any, where: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise CatalogueInvalid(f"{where} {name!r} does not exist" + (f"; did you mean {near[0]!r}?" if near else ""))


@cache
def default_catalogue() -> Catalogue:
    """The catalogue that is shipped."""
    return load_catalogue(importlib.resources.files("exchange.schema").joinpath("data/catalogue.toml").read_bytes())
