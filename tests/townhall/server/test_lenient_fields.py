"""What llama.cpp's server, vLLM and their clients send otherwise than OpenAI's own reference says, and what is made of it."""

import httpx
import openai
import pytest

from tests.townhall.fake import FakeLlama
from tests.townhall.server.running import ask as post
from tests.townhall.server.test_openai_client import SMALL, Person, client, user
from townhall.server.requests import ChatRequest, CompletionRequest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_minus_one_is_as_many_tokens_as_the_window_holds(serve, name):
    server = serve(FakeLlama([" ".join(["la"] * 900)], max_context=500))
    reply = client(server).chat.completions.create(model="double", messages=user("Hi"), extra_body={name: -1})
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.total_tokens == 501  # the last id needs no place in the cache


def test_minus_one_carries_a_text_on_to_the_end_of_the_window(serve):
    # LangChain's old default
    server = serve(FakeLlama([" ".join(["la"] * 900)], max_context=500))
    reply = client(server).completions.create(model="double", prompt="Once", max_tokens=-1)
    assert reply.choices[0].finish_reason == "length" and reply.usage.total_tokens == 501


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_no_tokens_has_no_text(serve, stream):
    llama = FakeLlama(["Fine."])
    server = serve(llama)
    for path, asked in (("chat/completions", {"messages": user("Hi")}), ("completions", {"prompt": "Once"})):
        reply = httpx.post(f"{server.url}/{path}", json={"model": "stacy", "max_tokens": 0, "stream": stream, **asked})
        assert reply.status_code == 200 and "Fine" not in reply.text and '"finish_reason":"length"' in reply.text


def test_a_whole_number_may_have_a_point(serve, tiny_server):
    server = serve(FakeLlama(["one two three four five six"]))
    fields = {"max_tokens": 2.0, "n": 1.0, "seed": 5.0, "top_k": 40.0, "top_logprobs": 0.0, "logprobs": True}
    reply = post(server, **fields)
    assert reply.json()["choices"][0]["message"]["content"] == "one two" and reply.json()["townhall"]["seeds"] == [5]
    ids = {"prompt": [5.0, 6.0], "best_of": 1.0, "logprobs": 1.0, "max_tokens": 1.0}
    assert httpx.post(f"{tiny_server.url}/completions", json=ids).json()["usage"]["prompt_tokens"] == 2
    assert httpx.post(f"{tiny_server.url}/detokenize", json={"tokens": [70.0]}).status_code == 200
    for name, value in (("max_tokens", 2.5), ("n", True), ("seed", "5"), ("top_k", 1e300), ("max_tokens", 1e300)):
        refused = post(server, **{name: value})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == name, (name, value)


def test_numbers_are_described_as_whole_with_their_bounds():
    for kind, name, bounds in (
        (ChatRequest, "max_tokens", {"minimum": -(1 << 31), "maximum": 1 << 31}),
        (ChatRequest, "n", {"minimum": 1, "maximum": 16}),
        (CompletionRequest, "logprobs", {"minimum": 0, "maximum": 20}),
        (CompletionRequest, "top_k", {"minimum": -1, "maximum": 1 << 31}),
    ):
        described = kind.model_json_schema()["properties"][name]["anyOf"][0]
        assert described == {"type": "integer", **bounds}, name


def test_what_a_function_returned_is_read_as_a_tools_words_are(serve):
    llama = FakeLlama()
    create = client(serve(llama)).chat.completions.create
    for role in ({"role": "function", "name": "look"}, {"role": "tool", "tool_call_id": "1"}):
        call = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}}
        create(model="double", messages=[*user("Look it up."), call, {**role, "content": "It is 7."}])
    one, other = llama.prompts
    assert one == other and "user\n<tool_response>\nIt is 7.\n</tool_response><|im_end|>" in llama.tokenizer.show(one)


def test_parts_of_a_message_stand_on_lines_of_their_own(serve):
    llama = FakeLlama()
    create = client(serve(llama)).chat.completions.create
    parts = [{"type": "text", "text": "What"}, {"type": "input_text", "text": "is"}, {"type": "output_text", "text": "big?"}]
    create(model="double", messages=user(parts))
    create(model="double", messages=user("What\nis\nbig?"))
    one, other = llama.prompts
    assert one == other
    with pytest.raises(openai.BadRequestError, match="'input_image' cannot be read"):
        create(model="double", messages=user([{"type": "input_image", "image_url": "x"}]))


def test_a_schema_needs_no_wrapper(tiny_server):
    create = client(tiny_server).chat.completions.create
    fields = {"model": "tiny", "messages": user("Who?"), "max_tokens": 200, "seed": 1, "temperature": 1.5}
    texts = []
    for form in ({"schema": SMALL}, {"json_schema": {"name": "person", "schema": SMALL}}, {"json_schema": None, "schema": SMALL}):
        reply = create(**fields, extra_body={"response_format": {"type": "json_schema", **form}})
        texts.append(reply.choices[0].message.content)
    Person.model_validate_json(texts[0])
    assert len(set(texts)) == 1
    for form in ({}, {"schema": 5}):
        with pytest.raises(openai.BadRequestError) as refused:
            create(**fields, extra_body={"response_format": {"type": "json_schema", **form}})
        assert refused.value.param.startswith("response_format.json_schema")


def test_a_base_url_may_leave_the_version_out(serve):
    server = serve(FakeLlama(["Fine."]))
    plain = openai.OpenAI(base_url=server.root, api_key="any", max_retries=0)
    assert plain.chat.completions.create(model="stacy", messages=user("Hi")).choices[0].message.content == "Fine."
    assert plain.completions.create(model="stacy", prompt="Once").choices[0].text == "Fine."
    assert plain.models.list().data == client(server).models.list().data
    assert plain.models.retrieve("gary").id == "gary"
    tokens = httpx.post(f"{server.root}/tokenize", json={"content": "How are you?"}).json()["tokens"]
    assert httpx.post(f"{server.root}/detokenize", json={"tokens": tokens}).json() == {"prompt": "How are you?"}
    for path in ("/v2/models", "/v1/v1/models", "/chat"):
        assert httpx.get(server.root + path).json()["error"]["code"] == "not_found"


def test_a_key_is_asked_for_without_the_version_too(serve):
    server = serve(keys=("secret",))
    assert httpx.get(f"{server.root}/models").status_code == 401
    assert httpx.get(f"{server.root}/models", headers={"Authorization": "Bearer secret"}).status_code == 200


@pytest.mark.parametrize("model", ["gpt-4o", "", "größe\r\nX-Other: 1", "m" * 256])
def test_an_unknown_model_means_the_bare_one_and_a_header_says_so(serve, model):
    llama = FakeLlama(["Fine."])
    server = serve(llama)
    for stream in (False, True):
        reply = post(server, model=model, stream=stream)
        warning = reply.headers["X-Townhall-Warning"]
        assert reply.status_code == 200 and warning == f"there is no model {ascii(model[:100])}; 'double' answers"
        assert "X-Other" not in reply.headers and '"model":"double"' in reply.text
    assert llama.tokenizer.show(llama.prompts[0]).startswith("<s><|im_start|>user\nHello<|im_end|>")
    for path, body in (("completions", {"prompt": "a"}), ("tokenize", {"prompt": "a"}), ("detokenize", {"tokens": []})):
        assert "X-Townhall-Warning" in httpx.post(f"{server.url}/{path}", json={"model": model, **body}).headers
    assert "X-Townhall-Warning" not in post(server).headers


def test_no_model_at_all_means_the_bare_one(serve):
    server = serve(FakeLlama(["Fine."]))
    reply = httpx.post(f"{server.url}/chat/completions", json={"messages": user("Hi")})
    assert reply.json()["model"] == "double" and "X-Townhall-Warning" not in reply.headers


def test_a_strict_server_refuses_a_model_that_it_does_not_serve(serve):
    server = serve(strict_model=True)
    with pytest.raises(openai.NotFoundError) as missing:
        client(server).chat.completions.create(model="gpt-4", messages=user("Hi"))
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    assert httpx.post(f"{server.url}/tokenize", json={"model": "gpt-4", "prompt": "a"}).status_code == 404
    reply = httpx.post(f"{server.url}/completions", json={"prompt": "a"})
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "model"
    assert post(server).status_code == 200


def test_pages_of_another_origin_may_read_the_warning(serve):
    server = serve(cors=("http://localhost:3000",))
    reply = httpx.get(f"{server.url}/models", headers={"Origin": "http://localhost:3000"})
    assert "X-Townhall-Warning" in reply.headers["Access-Control-Expose-Headers"]
