"""The server as LangChain meets it."""

import operator
from functools import reduce

import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, message_chunk_to_message
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

from tests.townhall.fake import FakeLlama

pytestmark = pytest.mark.slow


def chat(server, model="stacy", **settings):
    return ChatOpenAI(base_url=server.url, api_key="any", model=model, max_retries=0, timeout=60, **settings)


def test_invoke(serve):
    llama = FakeLlama(["Paris is big."])
    reply = chat(serve(llama)).invoke([SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Yo!"), HumanMessage("What is big?")])
    assert reply.content == "Paris is big." and reply.usage_metadata["output_tokens"] == 4
    assert reply.response_metadata["finish_reason"] == "stop"
    assert "Yo!<|im_end|>\n<|im_start|>user\nWhat is big?" in llama.tokenizer.show(llama.prompts[0])


def test_stream(serve):
    assert "".join(chunk.content for chunk in chat(serve(FakeLlama(["Paris is big."]))).stream("What is big?")) == "Paris is big."


def test_an_answer_is_cut_where_the_client_says(serve):
    reply = chat(serve(FakeLlama(["one two three four five"])), max_tokens=3).invoke("Count")
    assert reply.content == "one two three" and reply.response_metadata["finish_reason"] == "length"


class Box(BaseModel):
    """A box."""

    label: str = Field(max_length=8)
    items: int = Field(ge=0, le=9)


def test_structured_output(tiny_server):
    made = chat(tiny_server, "tiny", temperature=1.0, seed=4).with_structured_output(Box).invoke("A box!")
    assert isinstance(made, Box)


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_an_overflow_is_recognised_as_one(serve, way):
    chat_state = chat(serve(FakeLlama(max_context=400)), extra_body={"context": "stop"})
    messages = [message for n in range(40) for message in (HumanMessage(f"user {n}."), AIMessage(f"assistant {n}."))]
    with pytest.raises(ContextOverflowError, match="context_length_exceeded"):
        list(getattr(chat_state, way)([*messages, HumanMessage("And?")]))


def test_several_answers_and_log_probabilities(tiny_server):
    reply = chat(tiny_server, "tiny", seed=3, max_tokens=4, logprobs=True, top_logprobs=2).invoke("Hi")
    entries = reply.response_metadata["logprobs"]["content"]
    assert len(entries) == reply.usage_metadata["output_tokens"] and all(len(entry["top_logprobs"]) == 2 for entry in entries)
    (generations,) = chat(tiny_server, "tiny", seed=3, max_tokens=4, n=2).generate([[HumanMessage("Hi")]]).generations
    assert len(generations) == 2


@tool
def weather(city: str) -> str:
    """How the weather is in a city."""
    return f"rain in {city}"


@tool
def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent_calls_until_it_has_an_answer(serve, streamed):
    call = '<tool_call>\n{"name": "%s", "arguments": %s}\n</tool_call>'
    first = call % ("weather", '{"city": "Paris"}') + "\n" + call % ("add", '{"a": 1, "b": 2}')
    llama = FakeLlama([first, "And more: " + call % ("add", '{"a": 3, "b": 4}'), "Rain, 3 and 7."])
    model, tools = chat(serve(llama), "double").bind_tools([weather, add]), {"weather": weather, "add": add}
    messages = [HumanMessage("How is it in Paris, what is 1 + 2, and that plus 4?")]
    for _ in range(5):
        reply = message_chunk_to_message(reduce(operator.add, model.stream(messages))) if streamed else model.invoke(messages)
        messages.append(reply)
        if not reply.tool_calls:
            break
        assert not reply.invalid_tool_calls
        messages += [tools[one["name"]].invoke(one) for one in reply.tool_calls]
    assert reply.content == "Rain, 3 and 7." and [len(one.tool_calls) for one in messages if one.type == "ai"] == [2, 1, 0]
    assert [one.content for one in messages if one.type == "tool"] == ["rain in Paris", "3", "7"]
    shown = llama.tokenizer.show(llama.prompts[-1])
    assert shown.count("<tool_response>\nrain in Paris\n</tool_response>\n<tool_response>\n3\n</tool_response>") == 1
