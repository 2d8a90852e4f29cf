"""The forms on a receiver's page by which a person owns a section, asks about it, or says that it is not theirs."""

import html
from collections.abc import Mapping
from typing import Final

import msgspec

from exchange.agency.acknowledging import Word
from exchange.agency.errors import EventInvalid
from exchange.schema.page import Html
from exchange.schema.wire import Rung
from exchange.schema.words import Said

_TEXT: Final = (
    "<label>{label}<br><textarea name='{name}' rows='3' cols='60' maxlength='8000' {must}></textarea></label>"
)
_LINE: Final = "<label>{label}<br><input name='{name}' maxlength='200' {must}></label>"
#: Of each form: what it does, and its fields, of which some must be filled in.
_FORMS: Final = (
    (
        "own",
        "Take it on",
        (
            (_LINE, "name", "Who holds it from now on", True),
            (_LINE, "role", "Role", True),
            (_LINE, "contact", "How to reach them", True),
            (_TEXT, "note", "Note for your counterpart at the sending borough", False),
        ),
    ),
    ("query", "Ask the sender", ((_TEXT, "question", "Question to your counterpart there", True),)),
    (
        "redirect",
        "It is not ours",
        (
            (_TEXT, "reason", "Why", True),
            (_LINE, "to", "To which agency in this borough, such as housing/south", False),
            (_LINE, "whose", "Or whose it may be elsewhere", False),
        ),
    ),
)
_RUNGS: Final = {"own": Rung.OWNED, "query": Rung.QUERIED, "redirect": Rung.REDIRECTED}
VERBS: Final = tuple(_RUNGS)


def forms(event_id: str, word: str) -> Html:
    """The forms for a section; `word` comes back with each, and nobody else's page knows it."""
    return Html(
        "".join(
            f"<details><summary>{title}</summary><form method='post' action='/sections/{event_id}/{verb}'>"
            f"<input type='hidden' name='word' value='{html.escape(word)}'>"
            + "".join(
                f"<p>{field.format(label=label, name=name, must='required' if must else '')}</p>"
                for field, name, label, must in fields
            )
            + f"<p><button>{title}</button></p></form></details>"
            for verb, title, fields in _FORMS
        )
    )


def word_of(verb: str, fields: Mapping[str, str]) -> Word:
    """What a form says.

    Raises:
        EventInvalid: it lacks something, or something does not fit.
    """
    given = {name: text.replace("\r\n", "\n").strip() for name, text in fields.items() if text.strip()}
    said: dict[str, object] = {name: given[name] for name in ("note", "question", "reason", "whose") if name in given}
    if verb == "own":
        said["holder"] = {name: given.get(name) for name in ("name", "role", "contact")}
    try:
        return Word(_RUNGS[verb], msgspec.convert(said, Said), given.get("to"))
    except msgspec.ValidationError as error:
        field = str(error).rpartition("$.")[2].strip("`")
        raise EventInvalid(f"this does not fit: {field}", hint="Go back and mend it. Nothing was said.") from None
