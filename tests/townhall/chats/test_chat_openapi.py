"""The routes held to what the OpenAPI document says of them, with requests that are made up from it, against a chat that is there."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

pytestmark = pytest.mark.slow

NAMES = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
STREAMS = ("/townhall/events", "/townhall/chats/{id}/events")  # which do not end
EXAMPLES = 6  # for each operation


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_that_can_be_made_up_is_answered_with_what_is_not_documented(chats, mode):
    chat = chats("One two three.", "Four.")
    chat.say("Hi")
    schema = schemathesis.openapi.from_url(f"{chat.server.root}/openapi.json")
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if not operation.path.startswith(("/townhall/chats", "/townhall/search")) or operation.path in STREAMS:
            continue
        if mode is GenerationMode.NEGATIVE and not list(operation.body):
            continue

        @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def call(case):
            if "id" in case.path_parameters and case.operation.method.upper() != "DELETE":
                case.path_parameters["id"] = chat.path.stem
            if "message" in case.path_parameters:
                case.path_parameters["message"] = "2"
            case.call_and_validate(checks=CHECKS.get_by_names(NAMES))

        call()
        tried += 1
    assert tried >= (20 if mode is GenerationMode.POSITIVE else 12)
    chat.call("POST", "/stop")
    assert chat.http.get("/health").json()["status"] == "ok" and not chat.log().damages
