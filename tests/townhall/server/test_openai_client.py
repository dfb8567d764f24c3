"""The server as openai-python meets it."""

from typing import Literal

import openai
import pytest
from pydantic import BaseModel, Field

from tests.townhall.fake import FakeLlama
from tests.townhall.server.running import Running

pytestmark = pytest.mark.slow


def client(server: Running, **settings) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key=settings.pop("api_key", "any"), **{"max_retries": 0, "timeout": 60, **settings})


def user(text):
    return [{"role": "user", "content": text}]


def test_a_chat(serve):
    reply = client(serve(FakeLlama(["Paris is big."]))).chat.completions.create(model="stacy", messages=user("What is big?"))
    (choice,) = reply.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Paris is big.", "stop")
    assert reply.object == "chat.completion" and reply.model == "stacy" and reply.id.startswith("chatcmpl-")
    assert reply.usage.completion_tokens == 4 and reply.usage.total_tokens == reply.usage.prompt_tokens + 4
    assert 0 < reply.usage.prompt_tokens_details.cached_tokens < reply.usage.prompt_tokens  # the persona had been read
    assert reply.townhall["persona"] == "Stacy" and reply.townhall["dropped"] == []


def test_a_stream(serve):
    stream = client(serve(FakeLlama(["Paris is big."]))).chat.completions.create(
        model="gary", messages=user("What is big?"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    *spoken, usage = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in spoken) == "Paris is big."
    assert [chunk.choices[0].finish_reason for chunk in spoken] == [None] * (len(spoken) - 1) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1 and usage.choices == [] and usage.usage.completion_tokens == 4


def test_the_streaming_helper_puts_the_reply_together(serve):
    with client(serve(FakeLlama(["Paris is big."]))).chat.completions.stream(model="stacy", messages=user("What?")) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
    assert "".join(deltas) == "Paris is big." == stream.get_final_completion().choices[0].message.content


def test_completions(serve):
    chat_state = client(serve(FakeLlama(["a time", "there was"])))
    reply = chat_state.completions.create(model="stacy", prompt="Once upon", max_tokens=10)
    assert reply.choices[0].text == "a time" and reply.choices[0].finish_reason == "stop" and reply.object == "text_completion"
    chunks = list(chat_state.completions.create(model="stacy", prompt="Once upon a time", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "there was" and chunks[-1].choices[0].finish_reason == "stop"


def test_several_prompts_and_several_answers(serve):
    chat_state = client(serve(FakeLlama(["one", "two", "three", "four"])))
    reply = chat_state.completions.create(model="stacy", prompt=["a", "b"], n=2)
    assert [(choice.index, choice.text) for choice in reply.choices] == [(0, "one"), (1, "two"), (2, "three"), (3, "four")]
    chunks = list(chat_state.chat.completions.create(model="stacy", messages=user("Hi"), n=2, stream=True))
    texts = {0: "", 1: ""}
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: "one", 1: "two"}
    assert [chunk.choices[0].index for chunk in chunks if chunk.choices[0].finish_reason] == [0, 1]


def test_the_models(serve):
    chat_state = client(serve())
    assert [model.id for model in chat_state.models.list()] == ["stacy", "gary", "double"]
    assert chat_state.models.retrieve("gary").owned_by == "townhall"
    with pytest.raises(openai.NotFoundError) as missing:
        chat_state.models.retrieve("nobody/of that name")
    assert missing.value.code == "model_not_found" and missing.value.param == "model"


def test_the_personas_are_who_they_are_and_the_bare_model_is_nobody(serve):
    llama = FakeLlama()
    chat_state = client(serve(llama))
    system = {"role": "system", "content": "Speak Dutch."}
    for model in ("stacy", "double"):
        chat_state.chat.completions.create(model=model, messages=[system, *user("Hi")])
    stacy, bare = (llama.tokenizer.show(ids) for ids in llama.prompts)
    assert "lil stacy" in stacy and "Speak Dutch.<|im_end|>" in stacy
    assert stacy.index("lil stacy") < stacy.index("Speak Dutch.") < stacy.index("What is your name?")
    assert bare == "<s><|im_start|>system\nSpeak Dutch.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "custom", "custom": {"name": "f"}}]},
        {"n": 100},
        {"temperature": -1},
        {"messages": user([{"type": "image_url", "image_url": {"url": "x"}}])},
        {
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
        },  # a double has no vocabulary
        {"stop": [["x"]]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_cannot_be_honoured_is_refused(serve, fields):
    with pytest.raises(openai.BadRequestError) as refused:
        client(serve()).chat.completions.create(**{"model": "stacy", "messages": user("Hi"), **fields})
    assert refused.value.type == "invalid_request_error" and refused.value.body["message"]


def test_an_overflow_is_told_in_the_words_that_clients_look_for(serve):
    server = serve(FakeLlama(max_context=400))
    turns = [{"role": role, "content": f"{role} {n}."} for n in range(40) for role in ("user", "assistant")]
    with pytest.raises(openai.BadRequestError, match="context_length_exceeded") as refused:
        client(server).chat.completions.create(model="stacy", messages=[*turns, *user("And?")], extra_body={"context": "stop"})
    assert refused.value.code == "context_length_exceeded"
    assert "this model's maximum context length is 400 tokens" in refused.value.body["message"]  # what litellm and Roo Code look for
    info = client(server).chat.completions.with_raw_response.create(model="stacy", messages=[*turns, *user("And?")])
    receipt = info.parse().townhall
    dropped = receipt["dropped"]
    assert dropped == list(range(len(dropped))) and len(dropped) > 10 and receipt["dropped_tokens"] > 50
    assert info.headers["X-Townhall-Dropped"] == f"messages={len(dropped)}, tokens={receipt['dropped_tokens']}"


def test_a_client_tries_again_when_the_queue_was_full(serve):
    llama = FakeLlama(["Fine."])
    server = serve(llama)
    full, refusals = server.service.scheduler.submit, []

    def submit(job):
        if len(refusals) < 2:
            refusals.append(job)
            server.service.scheduler.max_queue = -4  # not even the slots; the real refusal, Retry-After and all
        else:
            server.service.scheduler.max_queue = 64
        full(job)

    server.service.scheduler.submit = submit
    with pytest.raises(openai.RateLimitError) as refused:
        client(server).chat.completions.create(model="stacy", messages=user("Hi"))
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    reply = client(server, max_retries=2).chat.completions.create(model="stacy", messages=user("Hi"))
    assert reply.choices[0].message.content == "Fine." and len(refusals) == 2


def test_a_key_is_asked_for_where_there_is_one(serve):
    server = serve(keys=("secret", "other"))
    for key in ("secret", "other"):
        assert client(server, api_key=key).models.list().data
    with pytest.raises(openai.AuthenticationError) as refused:
        client(server, api_key="secre").models.list()
    assert refused.value.code == "invalid_api_key" and "secre" not in str(refused.value.body)


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    mood: Literal["glad", "sad"]


SMALL = {**Person.model_json_schema(), "additionalProperties": False}


def test_a_parsed_reply_has_its_shape_whatever_the_model_would_like(tiny_server):
    chat_state = client(tiny_server)
    for seed in range(3):
        reply = chat_state.chat.completions.parse(model="stacy", messages=user("Who?"), response_format=Person, seed=seed, temperature=1.5)
        assert isinstance(reply.choices[0].message.parsed, Person) and reply.choices[0].finish_reason == "stop"
    # as clients of llama.cpp's server ask for it, and where a text is carried on
    fields = {"seed": 1, "temperature": 1.5, "max_tokens": 200, "extra_body": {"response_format": {"type": "json_object", "schema": SMALL}}}
    info = chat_state.chat.completions.create(model="stacy", messages=user("Who?"), **fields).choices[0].message.content
    carried = chat_state.completions.create(model="stacy", prompt="A person as JSON: ", **fields).choices[0].text
    for text in (info, carried):
        Person.model_validate_json(text)
    with pytest.raises(openai.BadRequestError, match="no token of this model"):
        chat_state.chat.completions.create(model="stacy", messages=user("Hi"), logit_bias={"999999": 1})
    with pytest.raises(openai.BadRequestError, match="cannot be honoured"):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/nowhere"}}}
        chat_state.chat.completions.create(model="stacy", messages=user("Hi"), response_format=form)


def test_a_seed_repeats_an_answer_and_the_reply_says_which(tiny_server):
    chat_state = client(tiny_server)
    endless = {str(id): -100 for id in tiny_server.service.llama.tokenizer.stop_ids}  # whatever seed the server draws
    answer = {"model": "tiny", "messages": user("Hi"), "max_tokens": 12, "temperature": 1.2, "logit_bias": endless}
    first = chat_state.chat.completions.create(**answer)
    (seed,) = first.townhall["seeds"]
    again, other = (chat_state.chat.completions.create(**answer, seed=one) for one in (seed, seed + 1))
    assert first.choices[0].message.content == again.choices[0].message.content != other.choices[0].message.content
    assert first.choices[0].finish_reason == "length"


def test_log_probabilities_and_biases(tiny_server):
    chat_state = client(tiny_server)
    token = tiny_server.service.llama.tokenizer.encode(" the", bos=False)[0]
    reply = chat_state.chat.completions.create(
        model="tiny", messages=user("Hi"), max_tokens=5, temperature=0, logit_bias={str(token): 100}, logprobs=True, top_logprobs=2,
        extra_body={"repeat_penalty": 1.0},
    )  # fmt: skip
    assert reply.choices[0].message.content == "the the the the the"
    content = reply.choices[0].logprobs.content
    assert [entry.token for entry in content] == [" the"] * 5 and bytes(content[0].bytes) == b" the"
    assert all(-1e-3 < entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in content)
    chunks = chat_state.chat.completions.create(model="tiny", messages=user("Hi"), max_tokens=5, seed=1, logprobs=True, stream=True)
    entries = [entry for chunk in chunks if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content]
    assert 1 <= len(entries) <= 5 and all(entry.top_logprobs == [] for entry in entries)
    text = chat_state.completions.create(model="tiny", prompt="Once", max_tokens=4, seed=2, logprobs=10)
    info = text.choices[0].logprobs
    assert len(info.tokens) == len(info.token_logprobs) == len(info.text_offset) <= 4 and 5 < max(map(len, info.top_logprobs)) <= 10


def test_turn_five_reads_its_own_tokens_only(tiny_server):
    chat_state = client(tiny_server)
    token = tiny_server.service.llama.tokenizer.encode(" the", bos=False)[0]
    messages, known = [], 0
    for turn in range(5):
        messages += user(f"This is what I say in turn {turn}.")
        reply = chat_state.chat.completions.create(
            model="gary", messages=messages, max_tokens=20, temperature=0, logit_bias={str(token): 100}
        )
        usage = reply.usage
        if turn:
            # the answer's last id was never put into the cache: nothing came after it
            assert usage.prompt_tokens_details.cached_tokens == known - 1
        known = usage.prompt_tokens + usage.completion_tokens
        messages.append({"role": "assistant", "content": reply.choices[0].message.content})
