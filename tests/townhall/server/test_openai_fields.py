"""One field of the contract after the other, as openai-python sends it."""

import openai
import pytest

from tests.townhall.fake import CHATML, FakeLlama, FakeTokenizer
from tests.townhall.server.test_openai_client import client, user

pytestmark = pytest.mark.slow


@pytest.fixture
def ask(serve):
    """ask(llama)(**fields): one question put to a double."""

    def to(llama=None):
        chat_state = client(serve(llama or FakeLlama(["Paris is big."])))
        return lambda **fields: chat_state.chat.completions.create(**{"model": "stacy", "messages": user("What is big?"), **fields})

    return to


def test_both_names_of_the_longest_answer(ask):
    create = ask(FakeLlama(["one two three four five six"]))
    for fields in ({"max_completion_tokens": 2}, {"max_tokens": 2}, {"max_completion_tokens": 2, "max_tokens": 5}):
        reply = create(**fields)
        assert reply.choices[0].message.content == "one two" and reply.choices[0].finish_reason == "length"


def test_white_space_at_the_ends_of_messages_is_the_clients(ask):
    llama = FakeLlama()
    said = [("system", " Be kind.\n"), ("user", "\n    def f():\n"), ("assistant", "  One.\n"), ("user", "\tAnd? ")]
    ask(llama)(model="double", messages=[{"role": role, "content": text} for role, text in said])
    turns = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in said)
    assert llama.tokenizer.show(llama.prompts[-1]) == f"<s>{turns}<|im_start|>assistant\n"


THINKING = ["<think>", "\nTwo", " and", " two.", "\n", "</think>", "\n", "\n", "Four", "."]


def test_thoughts_have_a_field_of_their_own(ask):
    create = ask(FakeLlama([THINKING]))
    message = create().choices[0].message
    assert (message.content, message.reasoning_content) == ("Four.", "Two and two.")
    deltas = [chunk.choices[0].delta for chunk in create(stream=True) if chunk.choices]
    thoughts = [delta.reasoning_content for delta in deltas if getattr(delta, "reasoning_content", None)]
    assert "".join(thoughts) == "Two and two." and len(thoughts) > 1
    assert "".join(delta.content or "" for delta in deltas) == "Four."


def test_thoughts_that_come_back_and_the_switch_reach_the_template(serve):
    keeping = CHATML.replace("message['content'] +", "(message.reasoning_content | default('')) + message['content'] +").replace(
        "assistant\n' }}", "assistant\n' + ('' if enable_thinking | default(true) else '<think>\n\n</think>\n\n') }}"
    )
    llama = FakeLlama(tokenizer=FakeTokenizer(keeping))
    create = client(serve(llama)).chat.completions.create
    messages = [*user("2 + 2?"), {"role": "assistant", "content": "Four.", "reasoning_content": "Hm. "}, *user("Sure?")]
    create(model="double", messages=messages, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    shown = llama.tokenizer.show(llama.prompts[-1])
    assert "assistant\nHm. Four.<|im_end|>" in shown and shown.endswith("assistant\n<think>\n\n</think>\n\n")
    create(model="double", messages=messages)
    assert llama.tokenizer.show(llama.prompts[-1]).endswith("assistant\n")


def test_four_stop_strings_and_the_first_that_comes_counts(ask):
    create = ask(FakeLlama(lambda prompt: ["One", " two", " three", " four"]))
    reply = create(stop=["four", "nine", " thr", "ten"])
    assert reply.choices[0].message.content == "One two" and reply.choices[0].finish_reason == "stop"


def test_several_answers_in_a_stream_each_have_an_opening_and_an_end(ask):
    create = ask(FakeLlama(["one", "two", "three"]))
    chunks = list(create(n=3, stream=True, stream_options={"include_usage": True}))
    for index, text in enumerate(["one", "two", "three"]):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == index]
        assert mine[0].delta.role == "assistant" and "".join(choice.delta.content or "" for choice in mine) == text
        assert [choice.finish_reason for choice in mine] == [None] * (len(mine) - 1) + ["stop"]
    usage = chunks[-1].usage
    assert usage.completion_tokens == 3 and len(chunks[-1].townhall["seeds"]) == 3
    whole = create(n=3)
    assert whole.usage.prompt_tokens == usage.prompt_tokens  # one prompt, whatever the number of answers


def test_a_seed_is_told_for_each_answer_and_follows_the_one_that_was_given(ask):
    assert ask()(n=3, seed=41).townhall["seeds"] == [41, 42, 43]


def test_what_a_stream_left_out_is_told_in_its_header_and_in_its_last_chunks(serve):
    create = client(serve(FakeLlama(max_context=400))).chat.completions
    turns = [{"role": role, "content": f"{role} {n}."} for n in range(40) for role in ("user", "assistant")]
    asked = {"model": "stacy", "messages": [*turns, *user("And?")], "stream": True, "stream_options": {"include_usage": True}}
    with create.with_streaming_response.create(**asked) as response:
        header = response.headers["X-Townhall-Dropped"]
        *_, finish, usage = list(response.parse())
    info = usage.townhall
    assert header == f"messages={len(info['dropped'])}, tokens={info['dropped_tokens']}" and info["dropped"]
    assert finish.townhall == info and usage.choices == [] and usage.usage.total_tokens > 0


def test_unknown_fields_are_tolerated(ask):
    extra = {"service_tier": "auto", "store": False, "metadata": {"a": "b"}, "verbosity": "low", "top_a": 0.5, "nested": [{"x": [1]}]}
    assert ask()(extra_body=extra).choices[0].message.content == "Paris is big."


@pytest.mark.parametrize(
    "fields",
    [
        {"grammar": 'root ::= "yes"'},
        {"json_schema": {"type": "object"}},
        {"guided_choice": ["yes", "no"]},
        {"structured_outputs": {"regex": "a+"}},
        {"web_search_options": {}},
        {"moderation": {"model": "m"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_other_servers_can_do_is_not_passed_over_in_silence(ask, fields):
    with pytest.raises(openai.BadRequestError) as refused:
        ask()(extra_body=fields)
    assert refused.value.param == next(iter(fields))


def test_what_says_nothing_is_no_wish(ask):
    # as SillyTavern sends it with every request
    nothing = {"grammar": "", "grammar_string": "", "json_schema": {}, "guided_json": None, "top_k": -1, "function_call": "none"}
    assert ask()(extra_body=nothing).choices[0].message.content == "Paris is big."


def test_a_fault_is_told_of_the_way_that_was_meant(ask):
    create = ask()
    for fields, param, fault in (
        ({"stop": ["x"] * 100}, "stop", "at most 64"),
        ({"stop": "x" * 300}, "stop", "at most 256"),
        ({"stop": ["x", 5]}, "stop.1", "string"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "required"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0", "send text"),
    ):
        with pytest.raises(openai.BadRequestError, match=fault) as refused:
            create(**fields)
        assert refused.value.param == param


def test_the_seed_minus_one_is_any(ask):
    create = ask()
    (one,), (other,) = (create(seed=-1).townhall["seeds"] for _ in range(2))
    assert one != other
    assert create(seed=-2).townhall["seeds"] == create(seed=-2).townhall["seeds"]


def test_a_system_message_amid_the_others_is_read_where_it_stands(ask):
    llama = FakeLlama(["Fine."])
    said = [*user("Hi"), {"role": "assistant", "content": "Yo!"}]
    create = ask(llama)
    create(model="double", messages=[{"role": "system", "content": "Be brief."}, *said, {"role": "system", "content": "[Sum up.]"}])
    shown = llama.tokenizer.show(llama.prompts[-1])
    assert "system\nBe brief.<|im_end|>" in shown
    assert shown.endswith("assistant\nYo!<|im_end|>\n<|im_start|>user\n[Sum up.]<|im_end|>\n<|im_start|>assistant\n")
    create(model="double", messages=[*said, {"role": "developer", "content": ""}])
    assert llama.tokenizer.show(llama.prompts[-1]).endswith("assistant\nYo!")  # nothing was asked: the answer is carried on


def test_every_kind_of_message_a_client_may_echo_back(ask):
    answer = ask()().choices[0].message
    llama = FakeLlama(["Fine."])
    messages = [
        {"role": "developer", "content": "Be brief."},
        *user([{"type": "text", "text": "What is"}, {"type": "text", "text": " big?"}]),
        answer.model_dump(),  # as clients append it, nulls and all
        {"role": "user", "content": "And small?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"role": "tool", "content": "ants", "tool_call_id": "1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No more."}]},
        *user("Please!"),
    ]
    assert ask(llama)(messages=messages).choices[0].message.content == "Fine."
    shown = llama.tokenizer.show(llama.prompts[0])
    assert "What is\n big?" in shown and "Paris is big." in shown and "ants" in shown and "No more." in shown


def test_no_text_at_all_is_still_an_answer(ask):
    create = ask(FakeLlama(lambda prompt: []))
    reply = create()
    assert reply.choices[0].message.content == "" and reply.choices[0].finish_reason == "stop" and reply.usage.completion_tokens == 0
    chunks = list(create(stream=True))
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, "stop"]


def test_the_models_have_every_field(serve):
    for model in client(serve()).models.list():
        assert (model.object, model.owned_by) == ("model", "townhall") and isinstance(model.created, int) and model.created > 1_600_000_000


def test_log_probabilities_are_told_where_they_were_asked_for_only(ask, tiny_server):
    assert ask()().choices[0].logprobs is None
    chat_state = client(tiny_server)
    reply = chat_state.chat.completions.create(model="tiny", messages=user("Hi"), max_tokens=3, logprobs=True, seed=1)
    content = reply.choices[0].logprobs.content
    assert len(content) == reply.usage.completion_tokens and all(entry.top_logprobs == [] and entry.logprob <= 0 for entry in content)
    for seed in range(6):  # of a model that breaks off in the middle of a character, too
        asked = {"model": "tiny", "messages": user("Hi"), "max_tokens": 5, "temperature": 2, "logprobs": True, "seed": seed}
        reply = chat_state.chat.completions.create(**asked)
        info = [entry.token for entry in reply.choices[0].logprobs.content]
        assert len(info) == reply.usage.completion_tokens
        streamed = [choice.logprobs for chunk in chat_state.chat.completions.create(**asked, stream=True) for choice in chunk.choices]
        assert [entry.token for logprobs in streamed if logprobs for entry in logprobs.content] == info
    (text,) = chat_state.completions.create(model="tiny", prompt="Once", max_tokens=6, seed=2, logprobs=1).choices
    begun = text.logprobs.text_offset
    assert begun[0] == len("Once") and begun == sorted(begun) and begun[-1] <= len("Once" + text.text)


def test_any_key_will_do_where_none_is_asked_for(serve):
    server = serve()
    for key in ("any", "sk-" + "x" * 2000):
        assert client(server, api_key=key).models.list().data
