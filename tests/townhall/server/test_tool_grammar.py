"""Calls that a model is held to: a tiny, random one, which would never call anything by itself."""

import json
from dataclasses import replace

import numpy as np
import openai
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

from tests.reference.tiny import CHAT_TEMPLATE, make_tiny_gguf, tiny_metadata
from tests.reference.words import TOKENS
from tests.townhall.formats.call_templates import HERMES, MISTRAL
from tests.townhall.server.random_schemas import malformed, objects
from tests.townhall.server.running import OPTIONS, Opened, Running
from tests.townhall.server.test_openai_client import client, user
from tests.townhall.server.test_tools import read, tool
from townhall.conversation import default_sampling
from townhall.formats.chat_template import ChatTemplate
from townhall.prompt import Prompt
from townhall.server.grammar import CallGrammar, Grammars
from townhall.server.served_models import BARE_MODEL
from townhall.server.tool_requests import FunctionDefinition
from townhall.server.tools import CallReading, call_tags

pytestmark = pytest.mark.slow
ADD = tool("add", a={"type": "integer", "minimum": 0, "maximum": 99}, b={"enum": ["one", "two"]})
MOOD = tool("mood", glad={"type": "boolean"})


@pytest.fixture(scope="module", params=["text", "hermes", "mistral"])
def held(request, tmp_path_factory, tiny_server):
    """A server whose model has no tools in its template, has them as Hermes does, or as Mistral does, with a control token of its own."""
    if request.param == "text":
        yield tiny_server
        return
    sizes = {"n_layers": 1, "dim": 64, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "hidden_dim": 96, "vocab_size": len(TOKENS) + 1}
    own = tiny_metadata(**sizes)
    tokens, kinds = list(own["tokenizer.ggml.tokens"]), list(own["tokenizer.ggml.token_type"])
    tokens[-1], kinds[-1] = "[TOOL_CALLS]", 3
    overrides = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.chat_template": {"hermes": HERMES, "mistral": MISTRAL}[request.param],
    }
    path = make_tiny_gguf(
        tmp_path_factory.mktemp("held") / "held.gguf",
        n_layers=1,
        hidden_dim=96,
        vocab_size=len(TOKENS) + 1,
        context_length=2048,
        overrides=overrides,
    )

    def load() -> Opened:
        from app.models.llama import Llama

        llama = Llama.load(path, 1536)
        return Opened(llama, default_sampling(), llama.backend)

    server = Running(load, replace(OPTIONS, model_id="tiny"))
    yield server
    server.stop()


def ask(server, **fields):
    asked = {"model": "tiny", "messages": user("Hi"), "tools": [ADD, MOOD], "temperature": 1.0, "max_tokens": 700, **fields}
    return client(server).chat.completions.create(**asked)


def check(name, arguments):
    schemas = {"add": ADD["function"]["parameters"], "mood": MOOD["function"]["parameters"]}
    assert malformed(arguments, {**schemas[name], "additionalProperties": False}) is None, arguments


def test_required_and_named_choices_call_at_once(held):
    called = set()
    for seed in range(4):
        choice = ask(held, tool_choice="required", seed=seed).choices[0]
        assert choice.finish_reason == "tool_calls" and choice.message.content is None and 1 <= len(choice.message.tool_calls) <= 16
        called |= {call.function.name for call in choice.message.tool_calls}
        for call in choice.message.tool_calls:
            check(call.function.name, call.function.arguments)
    assert called == {"add", "mood"}
    named = ask(held, tool_choice={"type": "function", "function": {"name": "mood"}}, n=2, seed=5).choices
    assert [call.function.name for choice in named for call in choice.message.tool_calls] == ["mood", "mood"]
    single = ask(held, tool_choice="required", parallel_tool_calls=False, seed=6).choices[0].message.tool_calls
    assert len(single) == 1
    content, calls, finish = read(ask(held, tool_choice="required", seed=7, stream=True))
    assert not content and calls and finish == "tool_calls"
    for _, _, name, arguments in calls:
        check(name, arguments)


def test_text_is_free_until_the_trigger_and_held_from_there_on(held):
    """Tokens drawn by chance from those that are allowed: the worst of models."""
    llama, served = held.service.llama, held.service.served_models
    tokenizer, syntax = llama.tokenizer, served.call_syntax
    functions = [FunctionDefinition(**one["function"]) for one in (ADD, MOOD)]
    calls = Grammars(tokenizer).of_calls(syntax, functions, parallel=True)
    reading = CallReading(syntax, ["add", "mood"], tags=call_tags(syntax, tokenizer.special_ids))
    random = np.random.default_rng(1)
    for glued in ("", "\n", '\n{"na') if syntax.trigger == "<tool_call>" else ("",):
        grammar = CallGrammar(calls, reading, tokenizer, served.prompt(served.bare), must=False)
        ids = tokenizer.encode_pieces([("Well <tool! ", False), (syntax.trigger + glued, True)], bos=False, continued=True)
        assert grammar.allowed().all()
        for token in ids:
            assert grammar.allowed()[token]
            grammar.take(token)
        while not (allowed := grammar.allowed())[list(tokenizer.stop_ids)].any() or random.random() < 0.5:
            choices = np.flatnonzero(allowed)
            assert len(choices) < tokenizer.vocab_size / 2
            ids.append(int(random.choice(choices)))
            if ids[-1] in tokenizer.stop_ids:
                break
            grammar.take(ids[-1])
        text = "".join(tokenizer.decode([token]) or reading.tags.get(token, "") for token in ids)
        reader = reading.reader()
        reader.push(text), reader.flush()
        assert reader.content.strip() == "Well <tool!" and reader.calls
        for call in reader.calls:
            check(call.name, call.arguments)


def test_thoughts_come_before_a_call_that_must_come(held):
    thinking = {"chat_template_kwargs": {"enable_thinking": True}}
    choice = ask(held, tool_choice="required", seed=1, extra_body=thinking).choices[0]  # this model knows no thoughts, and calls at once
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    tokenizer, syntax = held.service.llama.tokenizer, held.service.served_models.call_syntax
    reading = CallReading(syntax, ["mood"], tags=call_tags(syntax, tokenizer.special_ids))
    calls = Grammars(tokenizer).of_calls(syntax, [FunctionDefinition(**MOOD["function"])], parallel=False)
    cue = CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    prompt = Prompt(ChatTemplate(BARE_MODEL, cue), tokenizer)
    assert prompt.opens_thoughts
    grammar = CallGrammar(calls, reading, tokenizer, prompt, must=True)
    for token in tokenizer.encode("Hm, <tool_call> or [TOOL_CALLS] or not?", bos=False, special=False):
        grammar.take(token)
        assert grammar.allowed().all()
    for token in prompt.thoughts_end:
        grammar.take(token)
    assert np.array_equal(grammar.allowed(), calls().allowed())


def test_a_trigger_that_no_call_follows_stays_text(held):
    llama, served = held.service.llama, held.service.served_models
    reading = CallReading(served.call_syntax, ["add"])
    calls = Grammars(llama.tokenizer).of_calls(served.call_syntax, [FunctionDefinition(**ADD["function"])], parallel=True)
    grammar = CallGrammar(calls, reading, llama.tokenizer, served.prompt(served.bare), must=False)
    for token in llama.tokenizer.encode("a <tool_call", bos=False) + llama.tokenizer.encode(" [TOOL_CALL", bos=False, special=False):
        grammar.take(token)
    assert grammar.allowed().all()


def test_an_answer_is_a_call_or_has_its_shape(held):
    shape = {"type": "object", "properties": {"word": {"enum": ["yes", "no"]}}, "required": ["word"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "word", "schema": shape}}
    kinds = set()
    for seed in range(8):
        choice = ask(held, seed=seed, response_format=form).choices[0]
        kinds.add(choice.finish_reason)
        if choice.finish_reason == "stop":
            assert json.loads(choice.message.content)["word"] in ("yes", "no")
        for call in choice.message.tool_calls or []:
            check(call.function.name, call.function.arguments)
    assert kinds <= {"stop", "tool_calls"} and kinds


def test_strict_refuses_what_cannot_be_held_and_else_it_is_left_out(tiny_server):
    odd = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["a"],
        "not": {"required": ["b"]},
    }
    functions = [{"type": "function", "function": {"name": "f", "parameters": odd, "strict": strict}} for strict in (True, False)]
    with pytest.raises(openai.BadRequestError, match="the parameters of f cannot be honoured"):
        ask(tiny_server, tools=functions[:1], tool_choice="required")
    (call,) = ask(tiny_server, tools=functions[1:], tool_choice="required", parallel_tool_calls=False).choices[0].message.tool_calls
    assert malformed(call.function.arguments, odd) is None
    with pytest.raises(openai.BadRequestError, match="longer than"):
        long = {"type": "object", "properties": {"a": {"enum": ["x" * 70000]}}}
        ask(tiny_server, tools=[{"type": "function", "function": {"name": "f", "parameters": long}}], tool_choice="required")


def test_a_function_without_parameters_is_called_with_none(tiny_server):
    bare = {"type": "function", "function": {"name": "now"}}
    (call,) = ask(tiny_server, tools=[bare], tool_choice="required", parallel_tool_calls=False).choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("now", "{}")


@settings(max_examples=12, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(schema=objects())
def test_arguments_follow_any_schema_at_temperature_one(tiny_server, schema):
    """bench.tools asks a thousand of them."""
    assume(len(json.dumps(schema)) < 300)  # a token of this model is hardly more than a character
    made = {"type": "function", "function": {"name": "made", "parameters": schema}}
    choice = ask(tiny_server, tools=[made], tool_choice={"type": "function", "function": {"name": "made"}}, seed=1).choices[0]
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and malformed(call.function.arguments, schema) is None, (schema, call.function.arguments)
