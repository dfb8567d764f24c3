"""The Responses API as openai-python and LangChain meet it."""

import json

import httpx
import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from tests.townhall.fake import FakeLlama
from tests.townhall.server.test_openai_client import Person, client
from tests.townhall.server.test_tools import CALL, THREE, TOOLS

pytestmark = pytest.mark.slow
FUNCTIONS = [{"type": "function", **one["function"]} for one in TOOLS]


@pytest.fixture
def ask(serve):
    """ask(llama)(**fields): a response of a double."""

    def to(llama=None):
        create = client(serve(llama or FakeLlama(["Paris is big."]))).responses.create
        return lambda **fields: create(**{"model": "double", "input": "What is big?", **fields})

    return to


def test_a_response(ask):
    llama = FakeLlama(["Paris is big."])
    response = ask(llama)(instructions="Be brief.", max_output_tokens=50, temperature=0.5)
    assert response.output_text == "Paris is big." and response.status == "completed" and response.object == "response"
    (message,) = response.output
    assert (message.type, message.role, message.status, message.content[0].type) == ("message", "assistant", "completed", "output_text")
    usage = response.usage
    assert usage.output_tokens == 4 and usage.total_tokens == usage.input_tokens + 4 and usage.input_tokens == len(llama.prompts[0])
    assert response.max_output_tokens == 50 and response.temperature == 0.5 and response.instructions == "Be brief."
    assert "system\nBe brief.<|im_end|>" in llama.tokenizer.show(llama.prompts[0])


def test_a_response_that_is_cut_says_so(ask):
    response = ask()(max_output_tokens=2)
    assert response.status == "incomplete" and response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text == "Paris is" and response.output[0].status == "incomplete"


WORDS = ["<think>", "\nHm.", "\n</think>", "\n\n", "Let me", " look.", "\n", CALL[:20], CALL[20:70], CALL[70:]]


def test_events_are_typed_and_numbered_and_put_the_response_together(ask):
    events = list(ask(FakeLlama([WORDS]))(tools=FUNCTIONS, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    shapes = [event.type.removeprefix("response.") for event in events if not event.type.endswith("delta")]
    opened, closed = ["output_item.added", "content_part.added"], ["content_part.done", "output_item.done"]
    assert shapes == [
        *("created", "in_progress"),
        *(*opened, "reasoning_text.done", *closed),
        *(*opened, "output_text.done", *closed),
        *("output_item.added", "function_call_arguments.done", "output_item.done", "completed"),
    ]
    deltas = {}
    for event in events:
        if event.type.endswith("delta"):
            deltas.setdefault(event.output_index, []).append(event.delta)
            assert event.item_id
    assert ["".join(parts) for parts in deltas.values()] == ["Hm.", "Let me look.", '{"city": "Paris"}']
    response = events[-1].response
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert response.output[2].name == "get_weather" and response.output[2].status == "completed"
    ids = {event.item.id for event in events if event.type == "response.output_item.added"}
    assert ids == {item.id for item in response.output} and len(ids) == 3
    whole = ask(FakeLlama([WORDS]))(tools=FUNCTIONS)
    assert [item.type for item in whole.output] == ["reasoning", "message", "function_call"]


def test_the_streaming_helper_puts_the_response_together(serve):
    with client(serve(FakeLlama(["Paris is big."]))).responses.stream(model="double", input="What?") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert text == "Paris is big." == stream.get_final_response().output_text


def test_output_items_come_back_as_input(ask):
    llama = FakeLlama([WORDS, "It rains."])
    create = ask(llama)
    first = create(tools=FUNCTIONS)
    result = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "rain"}
    conversation = [{"role": "user", "content": [{"type": "input_text", "text": "What is big?"}]}, *first.output, result]
    assert create(tools=FUNCTIONS, input=conversation).output_text == "It rains."
    one, other = llama.prompts
    assert other[: len(one)] == one
    assert llama.tokenizer.show(other[len(one) :]) == (
        f"Let me look.\n{CALL}<|im_end|>\n<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "fields, fault",
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id: this server keeps no responses"),
        ({"conversation": "conv_1"}, "conversation: this server keeps no conversations"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0: an item of type 'item_reference'"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "content of type 'input_image' cannot be read",
        ),
        ({"tools": [{"type": "web_search"}]}, "a tool of type 'web_search' cannot be called here"),
        ({"input": []}, "input"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_what_cannot_be_is_refused_by_name(ask, fields, fault):
    with pytest.raises(openai.BadRequestError, match=fault):
        ask()(**fields)


def test_that_nothing_is_kept_is_said(serve):
    server = serve(FakeLlama(["Paris is big."]))
    reply = httpx.post(f"{server.url}/responses", json={"input": "Hi", "model": "double", "store": True}, timeout=60)
    assert reply.json()["store"] is False and "not kept here" in reply.headers["X-Townhall-Warning"]
    reply = httpx.post(f"{server.root}/responses", json={"input": "Hi", "model": "double"}, timeout=60)
    assert reply.status_code == 200 and "X-Townhall-Warning" not in reply.headers


def test_a_failure_in_mid_stream_is_an_event(ask):
    *_, last = ask(FakeLlama([["Paris", " is", RuntimeError("the card fell out")]]))(stream=True)
    assert last.type == "response.failed" and last.response.error.code == "server_error" and last.response.status == "failed"


def test_a_parsed_response_and_a_required_call(tiny_server):
    responses = client(tiny_server).responses
    parsed = responses.parse(model="tiny", input="Who?", text_format=Person, temperature=1.0)
    assert isinstance(parsed.output_parsed, Person)
    digit = {"type": "integer", "minimum": 0, "maximum": 99}  # without bounds a random model may write digits until it is cut off
    parameters = {"type": "object", "properties": {"a": digit, "b": digit}, "required": ["a", "b"], "additionalProperties": False}
    called = responses.create(
        model="tiny",
        input=THREE,
        tools=[{**FUNCTIONS[1], "parameters": parameters}],
        tool_choice={"type": "function", "name": "add"},
        temperature=1.0,
    )
    (call,) = called.output
    assert call.type == "function_call" and json.loads(call.arguments).keys() == {"a", "b"}


def test_langchain_speaks_it_too(serve):
    model = ChatOpenAI(base_url=serve(FakeLlama([CALL])).url, api_key="any", model="double", use_responses_api=True, max_retries=0)
    reply = model.bind_tools(TOOLS).invoke([HumanMessage("How is it in Paris?")])
    assert [(call["name"], call["args"]) for call in reply.tool_calls] == [("get_weather", {"city": "Paris"})]
