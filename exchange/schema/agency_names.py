"""The names of local agencies: `KIND`, or `KIND/LABEL` where a borough has several of a kind. They cross no wire."""

from typing import Annotated

from msgspec import Meta

LabelText = Annotated[
    str,
    Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,39}\Z", description="a label of lower-case letters, digits and hyphens"),
]
AgencyName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9-]{0,39}(/[a-z0-9][a-z0-9-]{0,39})?\Z",
        description="the name of an agency, such as housing or housing/south",
    ),
]
AgencyNameOrNone = Annotated[
    str,
    Meta(
        pattern=r"^([a-z][a-z0-9-]{0,39}(/[a-z0-9][a-z0-9-]{0,39})?)?\Z",
        description="the name of an agency, such as housing or housing/south, or empty",
    ),
]


def kind_of(name: str) -> str:
    """The kind of the agency of that name."""
    return name.partition("/")[0]
