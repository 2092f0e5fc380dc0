from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serve.app import create_app
from serve.backend import LocalBackend
from serve.openapi import schema_text
from serve.settings import Settings

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"
COMMAND = "python -m serve.openapi > docs/openapi.json"


def test_the_schema_in_the_docs_is_the_applications_own() -> None:
    if json.loads(FILE.read_text(encoding="utf-8")) != json.loads(schema_text()):
        pytest.fail(f"docs/openapi.json is not what the application says of itself; run: {COMMAND}")


def test_the_running_application_serves_the_same_schema() -> None:
    app = create_app(LocalBackend(None), Settings(loopback_only=False))
    with TestClient(app) as client:
        assert client.get("/openapi.json").json() == json.loads(FILE.read_text(encoding="utf-8"))


def test_every_route_says_what_it_is_for_and_the_command_is_in_the_makefile() -> None:
    schema = json.loads(FILE.read_text(encoding="utf-8"))
    routes = [(path, method, route) for path, methods in schema["paths"].items() for method, route in methods.items()]
    assert {"/v1/recommend", "/v1/recommend:batch", "/v1/items", "/v1/model", "/readyz"} <= {
        path for path, _, _ in routes
    }
    assert [(path, method) for path, method, route in routes if not route.get("description")] == []
    makefile = (FILE.parents[1] / "Makefile").read_text(encoding="utf-8")
    assert f"$(BIN)/{COMMAND}" in makefile
