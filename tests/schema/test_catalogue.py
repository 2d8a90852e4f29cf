"""A catalogue that contradicts itself, or the form, is refused."""

import pytest

from exchange.schema.catalogue import default_catalogue, load_catalogue
from exchange.schema.errors import CatalogueInvalid
from tests.schema.forms import EXAMPLES, IDENTIFIERS

SHIPPED = (EXAMPLES.parent / "catalogue.toml").read_text(encoding="utf-8")


def test_the_file_in_config_is_the_one_that_is_shipped() -> None:
    assert load_catalogue(SHIPPED.encode()) == default_catalogue()


@pytest.mark.parametrize(("identifier", "owner"), IDENTIFIERS.items())
def test_an_identifier_is_allowed_to_its_owner_alone(identifier: str, owner: str) -> None:
    assert default_catalogue().allowed(f"subject.{identifier}") == {owner}


@pytest.mark.parametrize("name", ["injunction-1", "subject.pnc-1", "nonsense", ""])
def test_a_part_that_the_catalogue_does_not_make_is_allowed_to_nobody(name: str) -> None:
    assert default_catalogue().allowed(name) == frozenset()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('fields = ["pnc"]', 'fields = ["pcn"]', "did you mean"),
        ('readers = ["dwp"]', 'readers = ["dpw"]', "did you mean"),
        ('section = "associates"', 'section = "asociates"', "did you mean"),
        ('name = "subject.pnc"', 'name = "subject.nino"', "same name"),
        ('fields = ["pnc"]', "fields = []", "no part holds"),
        ('fields = ["pnc"]', 'fields = ["pnc"]\ncolour = "red"', "cannot be read"),
        ("version = 1", "version = ", "cannot be read"),
        ('fields = ["number", "kind"', 'fields = ["nmuber", "kind"', "did you mean"),
        ('each = "conditions"', 'each = "condition"', "did you mean"),
        ('each = "conditions"', 'each = "court"', "does not exist"),
        ('readers_from = "supporting_agency"', 'readers_from = "suporting_agency"', "did you mean"),
        ('readers_from = "supporting_agency"', "", "needs `fields` and `readers_from`"),
    ],
)
def test_a_mistake_in_the_catalogue_is_named(old: str, new: str, message: str) -> None:
    with pytest.raises(CatalogueInvalid, match=message):
        load_catalogue(SHIPPED.replace(old, new, 1).encode())


@pytest.mark.parametrize("data", [b"a = " + b"9" * 5000, b"a = " + b"[" * 9999, b"\xff", b"a = 1"])
def test_what_is_no_catalogue_is_refused_as_such(data: bytes) -> None:
    with pytest.raises(CatalogueInvalid, match="cannot be read"):
        load_catalogue(data)
