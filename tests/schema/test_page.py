"""Pages: what is filled in is text."""

from hypothesis import given
from hypothesis import strategies as st

from exchange.schema.page import Html, fill, join, page, page_headers


@given(st.text())
def test_text_stays_text(text: str) -> None:
    filled = fill("<p title='{}'>{}</p>", text, text)
    assert filled.count("<") == 2
    assert filled.count("'") == 2
    assert page(text, Html(""), title=text).count("<h1>") == 1


def test_a_piece_is_filled_in_as_it_is() -> None:
    assert (
        fill("<ul>{}</ul>", join([fill("<li>{}</li>", "a&b"), Html("<li></li>")]))
        == "<ul><li>a&amp;b</li><li></li></ul>"
    )


def test_a_form_goes_nowhere_unless_the_page_has_one() -> None:
    assert "form-action 'none'" in page_headers()["content-security-policy"]
    assert "form-action 'self'" in page_headers(forms=True)["content-security-policy"]
