"""Write the descriptions of the APIs, openapi*.json, anew: `python docs/render_openapi.py`."""

import json
from pathlib import Path
from typing import Any

from exchange.node.openapi import agencies_document, local_document, peers_document

DOCS = Path(__file__).parent


def files() -> dict[Path, str]:
    """Each file, and what should be in it."""
    documents: dict[str, dict[str, Any]] = {
        "openapi.json": local_document(),
        "openapi-peers.json": peers_document(),
        "openapi-agencies.json": agencies_document(),
    }
    return {DOCS / name: json.dumps(document, indent=2) + "\n" for name, document in documents.items()}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
