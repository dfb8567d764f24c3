"""A server whose personas another server's model answers for, as openai-python, Responses and Ollama clients meet it."""

import json
import threading

import httpx
import openai
import pytest

from tests.townhall.fake import FakeLlama
from tests.townhall.server.running import ask
from tests.townhall.via.misbehaving import Misbehaving, fails, says, sends
from townhall.via.endpoint import RemoteEndpoint, TokenPrice

pytestmark = pytest.mark.slow

SECRET = "sk-sesame-0123456789"


@pytest.fixture
def via(serve):
    """via(remote, llama=…): a server that asks `remote`; the local model says "Local words."."""

    def start(remote, llama=None, timeout=60.0, **options):
        endpoint = RemoteEndpoint(remote.url, "big-one", SECRET, timeout=timeout, price=TokenPrice(100.0, 1000.0, "USD"))
        return serve(llama or FakeLlama(["Local words."]), via=endpoint, **options)

    return start


def client(server, **settings):
    return openai.OpenAI(base_url=server.url, api_key="any", timeout=60, **{"max_retries": 0, **settings})


def user(text):
    return [{"role": "user", "content": text}]


def host(remote):
    return remote.url.removeprefix("http://").removesuffix("/v1")


def sent(remote, at=-1):
    return [(message["role"], message["content"]) for message in remote.asked[at][1]["messages"]]


def test_the_other_model_answers_and_the_receipt_says_which_and_what_it_cost(via):
    with Misbehaving(says("Remote", " words."), says("More", " of", " them.")) as remote:
        server = via(remote, llama := FakeLlama(["Local words."]))
        read = len(llama.prompts)
        reply = client(server).chat.completions.create(
            model="stacy", messages=user("Hi"), seed=7, temperature=0.5, frequency_penalty=0.25, stop=["END"], max_tokens=40
        )
        chunks = list(client(server).chat.completions.create(model="stacy", messages=user("More"), stream=True))
    receipt = reply.townhall
    assert reply.choices[0].message.content == "Remote words." and reply.choices[0].finish_reason == "stop" and reply.model == "stacy"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (50, 2)  # as the other server counted
    assert receipt["device"] == host(remote) and receipt["via"] == {"model": "big-one", "host": host(remote)}
    assert "prompt_sha256" not in receipt and receipt["seeds"] == []  # nothing here could be repeated
    # 50 tokens at 100 and 2 at 1000 for a million
    assert (receipt["sent"]["model"], receipt["sent"]["server_tokens"], receipt["sent"]["cost"]) == ("big-one", 50, pytest.approx(0.007))
    assert sum(part["tokens"] for part in receipt["parts"]) == receipt["prompt_tokens"] == receipt["sent"]["sent_tokens"]
    assert len(llama.prompts) == read
    fields = remote.asked[0][1]
    assert {name: fields[name] for name in ("model", "seed", "temperature", "frequency_penalty", "max_tokens")} == {
        "model": "big-one", "seed": 7, "temperature": 0.5, "frequency_penalty": 0.25, "max_tokens": 40,
    }  # fmt: skip
    assert "END" in fields["stop"] and remote.asked[0][0]["authorization"] == f"Bearer {SECRET}"
    assert sent(remote, 0)[0][0] == "system" and "Stacy" in sent(remote, 0)[0][1] and sent(remote, 0)[-1] == ("user", "Hi")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "More of them."
    assert chunks[0].townhall["via"]["model"] == "big-one" and "sent" not in chunks[0].townhall
    last = chunks[-1].townhall["sent"]
    assert last["cost"] == pytest.approx(0.008) and last["total_cost"] == pytest.approx(0.015) and last["currency"] == "USD"


def test_who_is_named_by_its_own_name_answers(via):
    with Misbehaving(says("Remote words.")) as remote:
        server = via(remote)
        listed = {one["id"]: one["townhall"]["via"] for one in httpx.get(f"{server.url}/models").json()["data"]}
        place = {"model": "big-one", "host": host(remote)}
        assert listed == {"stacy": place, "gary": place, "big-one": place, "double": None}
        assert httpx.get(f"{server.root}/health").json()["via"] == place
        for model, words in (("double", "Local words."), ("big-one", "Remote words."), ("unknown", "Local words.")):
            reply = ask(server, model=model).json()
            assert reply["choices"][0]["message"]["content"] == words and ("sent" in reply["townhall"]) == (words[0] == "R")
        assert sent(remote) == [("user", "Hello")]  # the bare one has no persona


def test_other_apis_say_the_same(via):
    with Misbehaving(says("Remote", " words.")) as remote:
        server = via(remote)
        response = client(server).responses.create(model="stacy", input="Hi")
        assert response.output_text == "Remote words." and response.townhall["sent"]["model"] == "big-one"
        body = {"model": "stacy", "messages": user("Hi")}
        lines = [json.loads(line) for line in httpx.post(f"{server.root}/api/chat", json=body, timeout=60).text.splitlines()]
        assert "".join(line["message"]["content"] for line in lines) == "Remote words."
        assert lines[-1]["townhall"]["device"] == host(remote) and lines[-1]["eval_count"] == 2
        several = client(server).chat.completions.create(model="stacy", messages=user("Hi"), n=3)
        assert [choice.message.content for choice in several.choices] == ["Remote words."] * 3
        assert several.townhall["sent"]["cost"] == pytest.approx(0.021) and several.usage.completion_tokens == 6
        carried = client(server).chat.completions.create(
            model="stacy", messages=[*user("Hi"), {"role": "assistant", "content": "These are"}]
        )
        assert carried.choices[0].message.content == " Remote words." and sent(remote)[-2] == ("assistant", "These are")


@pytest.mark.parametrize("stream", [False, True])
def test_the_local_model_stands_in_where_the_server_is_away_and_the_receipt_says_so(via, stream):
    with Misbehaving(fails(503, "too busy"), fails(503), fails(503), says("Back.")) as remote:
        server = via(remote)
        answered = client(server).chat.completions.create(model="stacy", messages=user("Hi"), stream=stream)
        chunks = list(answered) if stream else []
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks) if stream else answered.choices[0].message.content
        receipt = chunks[-1].townhall if stream else answered.townhall
        assert text == "Local words." and "failed (503)" in receipt["away"] and "sent" not in receipt and "via" not in receipt
        assert receipt["device"] == "FAKE" and len(receipt["prompt_sha256"]) == 64 and len(receipt["seeds"]) == 1
        assert ask(server).json()["choices"][0]["message"]["content"] == "Back."
        counted = httpx.get(f"{server.root}/metrics").text
        assert 'townhall_via_answers_total{outcome="away"} 1.0' in counted
        assert 'townhall_via_answers_total{outcome="answered"} 1.0' in counted
        assert 'townhall_via_cost_total{currency="USD"} 0.006' in counted


def test_a_fault_is_one_sentence_of_a_kind_and_names_no_key(via, caplog):
    faults = [
        (fails(401, f"Incorrect API key provided: {SECRET}"), "via_refused", "refused the key of TOWNHALL_VIA_KEY (401)"),
        (fails(404, "no such model"), "via_refused", "has no model 'big-one'"),
        (sends(b"<html>" * 9000), "via_refused", "no answer of a chat model"),
    ]
    for fault, code, words in faults:
        with Misbehaving(fault) as remote:
            server = via(remote)
            with pytest.raises(openai.InternalServerError) as refused:  # the client retries twice by default
                client(server, max_retries=2).chat.completions.create(model="stacy", messages=user("Hi"))
            assert refused.value.status_code == 502 and refused.value.code == code and words in refused.value.body["message"]
            assert len(remote.asked) == 1
            with pytest.raises(openai.APIError) as refused:
                list(client(server).chat.completions.create(model="stacy", messages=user("Hi"), stream=True))
            assert refused.value.code == code and words in str(refused.value)
            shown = "".join(httpx.get(f"{server.root}{path}").text for path in ("/health", "/metrics", "/v1/models"))
            assert SECRET not in shown + str(refused.value.body) + caplog.text + repr(server.service.options)


def test_an_answer_that_breaks_off_ends_with_an_error(via):
    with Misbehaving(says("Half of", " it", finish=None)) as remote:
        text = ""
        with pytest.raises(openai.APIError) as broken:
            for chunk in client(via(remote)).chat.completions.create(model="stacy", messages=user("Hi"), stream=True):
                text += chunk.choices[0].delta.content or ""
    assert text == "Half of it" and "broke off in the middle" in str(broken.value)


@pytest.mark.parametrize(
    "name, fields",
    [
        ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("logprobs", {"logprobs": True}),
        ("logit_bias", {"logit_bias": {"5": 1}}),
        ("messages", {"messages": [*user("Hi"), {"role": "tool", "tool_call_id": "x", "content": "4"}]}),
    ],
)
def test_what_is_made_of_the_local_models_logits_is_refused_and_not_ignored(via, name, fields):
    with Misbehaving(says("Remote words.")) as remote:
        server = via(remote)
        refused = ask(server, **fields)
        assert refused.status_code == 400 and refused.json()["error"]["param"] == name
        assert "another server's model" in refused.json()["error"]["message"] and not remote.asked
        if name == "logprobs":
            assert ask(server, model="double", **fields).json()["choices"][0]["logprobs"]["content"] is not None


def endless(gone):
    """Speaks until its client leaves."""

    def behave(handler):
        handler.begin()
        try:
            while True:
                handler.piece("word ")
        except OSError:
            gone.set()

    return behave


def test_the_connection_is_closed_when_the_client_goes(via):
    gone = threading.Event()
    with Misbehaving(endless(gone)) as remote:
        server = via(remote)
        body = {"model": "stacy", "messages": user("Hi"), "stream": True, "max_tokens": 1000}
        with httpx.stream("POST", f"{server.url}/chat/completions", json=body, timeout=60) as response:
            for line in response.iter_lines():
                if "word" in line:
                    break
        assert gone.wait(60)
        server.wait(lambda: not server.service.busy)


def test_a_request_ends_at_the_servers_time_limit(via):
    silence = threading.Event()

    def silent(handler):
        handler.begin()
        handler.piece("One")
        silence.wait(60)

    with Misbehaving(silent) as remote:
        server = via(remote, limits={"request": 1.0})
        ended = ask(server)
        silence.set()
        assert ended.status_code == 408 and ended.json()["error"]["code"] == "timeout"
        server.wait(lambda: not server.service.busy)


def test_a_server_that_ends_says_so_in_the_stream(via):
    with Misbehaving(endless(threading.Event())) as remote:
        server = via(remote, grace=1.5)
        body = {"model": "stacy", "messages": user("Hi"), "stream": True, "max_tokens": 1 << 20}
        with httpx.stream("POST", f"{server.url}/chat/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            while "word" not in next(lines):
                pass
            server.server.should_exit = True
            rest = [line for line in lines if line.startswith("data: ")]
        assert json.loads(rest[-2].removeprefix("data: "))["error"]["code"] == "shutting_down" and rest[-1] == "data: [DONE]"


def test_always_rewrites_the_question_that_is_sent_and_the_receipt_has_both(via):
    talk = [*user("What is the capital of Spain?"), {"role": "assistant", "content": "Madrid."}, *user("and of Italy?")]
    with Misbehaving(says("Rome.")) as remote:
        reply = client(via(remote, enrich="always")).chat.completions.create(model="stacy", messages=talk)
        assert sent(remote)[-1] == ("user", "What is the capital of Italy?")
        assert reply.townhall["enriched"] == {"own": "and of Italy?", "offered": "What is the capital of Italy?"}
        client(via(remote, enrich="ask")).chat.completions.create(model="stacy", messages=talk)
        assert sent(remote)[-1] == ("user", "and of Italy?")


def test_history_is_bounded_and_the_local_model_notes_what_leaves(via):
    def scribe(prompt):
        asked = prompt.rsplit("<|im_start|>user\n", 1)[-1].split("<|im_end|>")[0]
        return asked.split("\n")[0] if "Copy what" in asked else "Local words."

    messages = []
    with Misbehaving(says("Nice to hear that from you.")) as remote:
        server = via(remote, FakeLlama(scribe, max_context=2000), history=120, context="summarize")
        for number in range(12):
            messages += user(f"My dog number {number} is called Rex and lives in town {number}.")
            receipt = client(server).chat.completions.create(model="stacy", messages=messages, max_tokens=30).townhall
            parts = {part["name"]: part["tokens"] for part in receipt["parts"]}
            assert parts.get("memory", 0) + parts["history"] <= 120 and sum(parts.values()) == receipt["prompt_tokens"]
            messages.append({"role": "assistant", "content": "Nice to hear that from you."})
            server.wait(lambda: not server.service.busy)
        assert receipt["memory"] and any(receipt["memory"].split(".")[0] in text for _, text in sent(remote))
        assert receipt["sent"]["sent_tokens"] < receipt["sent"]["whole_tokens"] and receipt["sent"]["cost"] < receipt["sent"]["whole_cost"]
