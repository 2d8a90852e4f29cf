"""The form as a JSON Schema (draft 2020-12), for editors and other programs."""

from typing import Any

import msgspec

from exchange.schema.form import Form


def form_json_schema() -> dict[str, Any]:
    """The schema document."""
    schema = msgspec.json.schema(Form)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:exchange:schema:form:1",
        "title": "Gang member referral: notification form",
        **schema,
    }
