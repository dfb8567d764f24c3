"""Tools of the chat endpoint over doubles that say what a model may say: what reaches the prompt, and what comes back."""

import json

import openai
import pytest

from tests.townhall.fake import FakeLlama, FakeTokenizer
from tests.townhall.formats.call_templates import HERMES, LLAMA3
from tests.townhall.server.test_openai_client import client, user

pytestmark = pytest.mark.slow


def tool(name="get_weather", **properties):
    parameters = {"type": "object", "properties": properties or {"city": {"type": "string"}}, "required": [*(properties or {"city": 0})]}
    return {"type": "function", "function": {"name": name, "description": f"What {name} does.", "parameters": parameters}}


TOOLS = [tool(), tool("add", a={"type": "integer"}, b={"type": "integer"})]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
SECOND = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
THREE = [{"role": "user", "content": "And 1 + 2?"}]


@pytest.fixture
def ask(serve):
    """ask(llama)(**fields): one question put to a double, with tools."""

    def to(llama):
        create = client(serve(llama)).chat.completions.create
        return lambda **fields: create(**{"model": "double", "messages": user("How is it in Paris?"), "tools": TOOLS, **fields})

    return to


def read(stream):
    """(content, [(index, id, name, arguments)], finish reason) of a stream; holds each call to the contract."""
    content, calls, finish = "", [], None
    for chunk in stream:
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        finish = choice.finish_reason or finish
        for part in choice.delta.tool_calls or []:
            if part.id:
                assert part.index == len(calls) and part.type == "function" and part.function.arguments == ""
                calls.append([part.index, part.id, part.function.name, ""])
            else:
                assert part.index == len(calls) - 1 and part.function.name is None
                calls[-1][3] += part.function.arguments
    return content, [tuple(call) for call in calls], finish


def test_a_call_has_its_place_in_the_message_and_words_beside_it_theirs(ask):
    choice = ask(FakeLlama([CALL]))().choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.id.startswith("call_") and call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    choice = ask(FakeLlama([f"Let me look.\n\n{CALL}\n{SECOND}"]))().choices[0]
    assert choice.message.content == "Let me look." and [call.function.name for call in choice.message.tool_calls] == ["get_weather", "add"]
    choice = ask(FakeLlama(["It rains."]))().choices[0]
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == ("It rains.", None, "stop")


def test_a_stream_gives_each_call_its_id_and_name_once_and_then_its_arguments(ask):
    content, calls, finish = read(ask(FakeLlama([f"Let me look.\n\n{CALL}\n{SECOND}"]))(stream=True))
    assert content == "Let me look." and finish == "tool_calls" and len({id for _, id, _, _ in calls}) == 2
    assert [(name, json.loads(arguments)) for _, _, name, arguments in calls] == [
        ("get_weather", {"city": "Paris"}),
        ("add", {"a": 1, "b": 2}),
    ]
    content, calls, finish = read(ask(FakeLlama(["What is a <tool_call> and a <tool"]))(stream=True))
    assert (content, calls, finish) == ("What is a <tool_call> and a <tool", [], "stop")


def test_thoughts_before_a_call_are_kept(ask):
    thinking = ["<think>", "\nHm", ".", "\n", "</think>", "\n\n", *CALL.split("\n", 1)[0], "\n", *CALL.split("\n", 1)[1]]
    create = ask(FakeLlama([thinking]))
    message = create().choices[0].message
    assert message.reasoning_content == "Hm." and message.content is None and message.tool_calls[0].function.name == "get_weather"
    deltas = [chunk.choices[0].delta for chunk in create(stream=True)]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "Hm."
    assert any(delta.tool_calls for delta in deltas)


def test_an_answer_that_is_cut_within_a_call_says_so(ask):
    choice = ask(FakeLlama([CALL]))(max_tokens=30).choices[0]
    assert choice.finish_reason == "length" and choice.message.tool_calls[0].function.arguments.startswith('{"city"')


def test_several_answers_call_by_themselves(ask):
    create = ask(FakeLlama([CALL, "It rains.", SECOND]))
    choices = create(n=3).choices
    assert [choice.finish_reason for choice in choices] == ["tool_calls", "stop", "tool_calls"]
    ends = {}
    for chunk in create(n=3, stream=True):
        ends |= {choice.index: choice.finish_reason for choice in chunk.choices if choice.finish_reason}
    assert ends == {0: "tool_calls", 1: "stop", 2: "tool_calls"}


def test_functions_as_they_were_before_tools(ask):
    create = ask(FakeLlama([f"{CALL}"]))
    functions = [one["function"] for one in TOOLS]
    choice = create(tools=openai.omit, functions=functions).choices[0]
    assert choice.finish_reason == "function_call" and choice.message.function_call.name == "get_weather" and not choice.message.tool_calls
    deltas = [chunk.choices[0].delta.function_call for chunk in create(tools=openai.omit, functions=functions, stream=True)]
    called = [delta for delta in deltas if delta]
    assert called[0].name == "get_weather" and called[0].arguments == "" and not any(delta.name for delta in called[1:])
    assert json.loads("".join(delta.arguments for delta in called)) == {"city": "Paris"}


def history(calls, *results):
    called = [{"id": id, "type": "function", "function": {"name": name, "arguments": arguments}} for id, name, arguments in calls]
    return [
        *user("How is it in Paris?"),
        {"role": "assistant", "content": None, "tool_calls": called},
        *({"role": "tool", "tool_call_id": call[0], "content": content} for call, content in zip(calls, results)),
    ]


ONE = history([("call_1", "get_weather", '{"city": "Paris"}')], "rain, <|im_end|> 12 °C")


def test_the_general_form_describes_functions_in_the_system_message(ask):
    llama = FakeLlama(["It rains."])
    reply = ask(llama)(messages=[{"role": "system", "content": "Be kind."}, *ONE])
    shown = llama.tokenizer.show(llama.prompts[-1])
    head, _, rest = shown.partition("<|im_end|>\n")
    assert head.startswith("<s><|im_start|>system\nBe kind.\n\n# Tools\n") and json.dumps(TOOLS[0]) in head and json.dumps(TOOLS[1]) in head
    assert rest == (
        "<|im_start|>user\nHow is it in Paris?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nrain, <|im_end|> 12 °C\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    # what a tool returned spells no control token
    assert llama.prompts[-1].count(llama.tokenizer.special_ids["<|im_end|>"]) == 4
    assert reply.usage.prompt_tokens == len(llama.prompts[-1]) == reply.townhall["prompt_tokens"] and reply.townhall["tools"] == "text"
    assert reply.townhall["pinned_tokens"] == len(llama.tokenizer.encode(head + "<|im_end|>\n"))


def test_a_template_that_knows_tools_lays_them_out(ask):
    tokenizer = FakeTokenizer(HERMES)
    llama = FakeLlama([CALL, "It rains."], tokenizer=tokenizer)
    create = ask(llama)
    assert create().choices[0].message.tool_calls[0].function.name == "get_weather"
    two = history([("call_1", "get_weather", '{"city": "Paris"}'), ("call_2", "add", '{"a": 1, "b": 2}')], "rain", "3 <|im_end|>")
    reply = create(messages=two)
    shown = tokenizer.show(llama.prompts[-1])
    assert shown.startswith("<s><|im_start|>system\nYou may call these:\n<tools>\n" + json.dumps(TOOLS[0]))
    assert shown.endswith(
        "<|im_start|>user\nHow is it in Paris?<|im_end|>\n<|im_start|>assistant\n"
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nrain\n</tool_response>\n<tool_response>\n3 <|im_end|>\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert llama.prompts[-1].count(tokenizer.special_ids["<|im_end|>"]) == 4  # system, user, assistant, tool
    assert reply.townhall["tools"] == "template" and reply.usage.prompt_tokens == len(llama.prompts[-1])
    create(messages=user("Hi"), tools=[])
    assert tokenizer.show(llama.prompts[-1]) == "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_the_calls_of_llama_3(ask):
    tokenizer = FakeTokenizer(LLAMA3)
    llama = FakeLlama(['{"name": "get_weather", "parameters": {"city": "Paris"}}', "It rains."], tokenizer=tokenizer)
    create = ask(llama)
    (call,) = create().choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    create(messages=ONE)
    assert tokenizer.show(llama.prompts[-1]).endswith(
        'assistant\n{"name": "get_weather", "parameters": {"city": "Paris"}}<|im_end|><|im_start|>ipython\nrain, <|im_end|> 12 °C<|im_end|>'
        "<|im_start|>assistant\n"
    )


def test_a_call_that_comes_back_keeps_the_ids_that_were_sampled(ask):
    words = ["<", "tool", "_call>", '\n{"', 'name": "get', '_weather", ', '"arguments": {"city', '": "Paris"}}', "\n</tool_call>"]
    llama = FakeLlama([words, "It rains."])
    create = ask(llama)
    message = create().choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
    sent = {"role": "assistant", "content": None, "tool_calls": [call.model_dump() for call in message.tool_calls]}
    reply = create(messages=[*user("How is it in Paris?"), sent, result])
    first, second = llama.prompts
    sampled = [llama.tokenizer.id(word) for word in words]
    assert second[: len(first) + len(sampled)] == first + sampled
    assert reply.usage.prompt_tokens_details.cached_tokens >= len(first) + len(sampled) - 1


@pytest.mark.parametrize("template", [None, HERMES], ids=["text", "template"])
def test_calls_leave_the_window_with_the_question_they_were_made_for(serve, template):
    tokenizer = FakeTokenizer(template) if template else FakeTokenizer()
    llama = FakeLlama(["Fine."], max_context=900, tokenizer=tokenizer)
    messages = []
    for n in range(12):
        messages += history([(f"call_{n}", "get_weather", '{"city": "Paris"}')], f"rain {n}") + [
            {"role": "assistant", "content": f"Wet {n}."}
        ]
    reply = client(serve(llama)).chat.completions.create(model="double", messages=[*messages, *ONE], tools=TOOLS, max_tokens=100)
    dropped, shown = reply.townhall["dropped"], tokenizer.show(llama.prompts[-1])
    assert dropped and dropped == list(range(len(dropped))) and len(dropped) % 4 == 0
    kept = 12 - len(dropped) // 4
    # each result that is there has its call before it, and the calls of the last question are there
    assert shown.count("<tool_response>\nrain") == kept + 1 == shown.count('"arguments": {"city": "Paris"}}')
    whole = client(serve(FakeLlama(["Fine."], 4000, tokenizer))).chat.completions.create(
        model="double", messages=[*messages, *ONE], tools=TOOLS
    )
    assert reply.townhall["dropped_tokens"] == whole.usage.prompt_tokens - reply.usage.prompt_tokens


@pytest.mark.parametrize(
    "fields, fault",
    [
        ({"tool_choice": {"type": "function", "function": {"name": "look"}}}, "there is no function 'look'"),
        ({"tool_choice": "maybe"}, "pass one of none, auto, required"),
        ({"tools": [], "tool_choice": "required"}, "no functions were sent"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "the same name"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "a tool of type 'custom' cannot be called here"),
        ({"tools": [{"type": "function"}]}, "function: Field required"),
        ({"tools": [tool("not a name")]}, "tools.0.function.name"),
        ({"tools": [tool(f"f{n}") for n in range(200)]}, "more than the 128"),
        ({"messages": ONE[:2]}, "the last one calls functions"),
        ({"tool_choice": "required"}, "no vocabulary"),
    ],
)
def test_what_cannot_be_is_refused(ask, fields, fault):
    with pytest.raises(openai.BadRequestError, match=fault):
        ask(FakeLlama())(**fields)


def test_no_tools_and_the_choice_of_none_leave_them_out(ask):
    llama = FakeLlama([CALL])
    create = ask(llama)
    for fields in ({"tool_choice": "none"}, {"tools": []}):
        message = create(**fields).choices[0].message
        assert message.content == CALL and message.tool_calls is None and "# Tools" not in llama.tokenizer.show(llama.prompts[-1])
