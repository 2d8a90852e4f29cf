"""Areas have names where they are known; any well-formed code is an area."""

import pytest

from exchange.schema.areas import AreaUnknown, area_name, area_names


def test_the_thirty_three_london_authorities_are_named() -> None:
    london = {code: name for code, name in area_names().items() if code.startswith("E09")}
    assert sorted(london) == [f"E09{number:06}" for number in range(1, 34)]
    assert len(set(london.values())) == 33
    assert list(london.values())[1:] == sorted(list(london.values())[1:]), "ONS numbers boroughs by the alphabet"


@pytest.mark.parametrize(
    ("code", "name"), [("E09000012", "Hackney"), ("E09000010", "Enfield"), ("W06000015", "Cardiff")]
)
def test_a_known_area_has_its_name(code: str, name: str) -> None:
    assert area_name(code) == name


def test_an_area_without_a_name_is_shown_by_its_code() -> None:
    assert area_name("E07999999") == "E07999999"


@pytest.mark.parametrize("code", ["", "Hackney", "E0900001", "E090000123", "e09000012", "E09000012\n", "X09000012"])
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(AreaUnknown):
        area_name(code)
