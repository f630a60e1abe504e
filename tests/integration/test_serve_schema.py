"""Requests drawn from the server's own OpenAPI schema: each is answered as the schema says, and none is a fault of the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from tests.api_server import ApiServer, api_server

schemathesis = pytest.importorskip("schemathesis", reason="this needs schemathesis: pip install -e '.[dev]'")
httpx2 = pytest.importorskip("httpx2")
pytest.importorskip("fastapi", reason="the server needs fastapi: pip install -e '.[serve]'")

from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

N_EXAMPLES = 40
"""Requests of each operation."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("schema")) as running:
        yield running


def _operations(base: str) -> list[tuple[str, Any]]:
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    return [(f"{operation.method} {operation.path}", operation) for operation in found]


def test_every_operation_keeps_to_the_schema(server):
    base = server.url.removesuffix("/v1")
    statuses: dict[str, set[int]] = {}
    for name, operation in _operations(base):
        statuses[name] = set()
        has_input = bool(list(operation.body))  # any other name or path is valid
        modes = schemathesis.GenerationMode
        for mode in modes if has_input else [modes.POSITIVE]:
            statuses[name] |= _statuses(base, operation.as_strategy(generation_mode=mode))
    assert all(status < 500 for found in statuses.values() for status in found)
    assert statuses["post /v1/chat/completions"] >= {200, 400}, statuses
    assert statuses["get /v1/models"] >= {200}, statuses


def _statuses(base: str, strategy: Any) -> set[int]:
    """Send what a strategy draws; return the statuses of the responses, which keep to the schema."""
    found: set[int] = set()
    checks = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]

    @hypothesis.settings(max_examples=N_EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=strategy)
    def run(case: Any) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = "toy"
        if isinstance(case.body, dict) and case.body.get("max_tokens") is None:
            case.body["max_tokens"] = 4
        response = case.call(base_url=base)
        found.add(response.status_code)
        case.validate_response(response, checks=checks)

    run()
    return found
