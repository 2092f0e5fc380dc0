"""The OpenAPI schema of the endpoint, as docs/openapi.json keeps it: `python -m serve.openapi > docs/openapi.json`."""

from __future__ import annotations

import json
import sys

from serve.app import create_app
from serve.backend import LocalBackend
from serve.settings import Settings


def schema_text() -> str:
    """The schema as JSON with one key per line, so that changes read well."""
    schema = create_app(LocalBackend(None), Settings()).openapi()
    return json.dumps(schema, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
