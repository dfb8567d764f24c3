"""The API's own description, and the API held to it by what can be made up from it."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from townhall.server.requests import ChatRequest

pytestmark = pytest.mark.slow

NAMES = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
EXAMPLES = 8  # for each operation


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_that_can_be_made_up_is_answered_with_what_is_not_documented(serve, mode):
    server = serve()
    schema = schemathesis.openapi.from_url(f"{server.root}/openapi.json")
    tried = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not [body for body in operation.body if body.media_type == "application/json"]:
            continue  # it has no body that could be wrong

        @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def call(case):
            case.call_and_validate(checks=CHECKS.get_by_names(NAMES))

        call()
        tried.add(operation.label)
    paths = httpx.get(f"{server.root}/openapi.json").json()["paths"].items()
    operations = {f"{method.upper()} {path}": one for path, methods in paths for method, one in methods.items()}
    assert tried == {label for label, one in operations.items() if mode is GenerationMode.POSITIVE or _has_json(one)}
    assert httpx.get(f"{server.root}/health").json()["status"] == "ok"


def test_every_field_that_is_honoured_is_described(serve):
    described = httpx.get(f"{serve().root}/openapi.json").json()["components"]["schemas"]["ChatRequest"]["properties"]
    assert described.keys() == {*ChatRequest.model_fields}


def _has_json(operation):
    return "application/json" in operation.get("requestBody", {}).get("content", {})
