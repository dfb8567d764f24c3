"""`echo` of a prompt with its log-probabilities, which lm-eval's loglikelihood is made of."""

import httpx
import numpy as np
import openai
import pytest

from tests.reference import llama_numpy
from tests.townhall.fake import FakeLlama
from tests.townhall.server.test_openai_client import client
from townhall.server.prompt_logprobs import UnscoredToken, score
from townhall.server.slots import Slots

pytestmark = pytest.mark.slow

TEXT = "that you are 你好 there"


@pytest.fixture(scope="module")
def reference(tiny_server, tiny_file):
    """reference(ids): float64 log-probabilities after each of them, of the NumPy model."""
    sizes, weights = llama_numpy.read_gguf(tiny_file)

    def log_softmax(ids):
        logits = llama_numpy.logits(ids, sizes, weights).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    return log_softmax


def complete(server, **fields):
    return client(server).completions.create(**{"model": "tiny", "seed": 1, "temperature": 0, **fields})


def ids_of(server, text=TEXT):
    return httpx.post(f"{server.url}/tokenize", json={"prompt": text}).json()["tokens"]


def test_a_prompt_is_scored_as_the_numpy_model_scores_it(tiny_server, reference):
    (choice,) = complete(tiny_server, prompt=TEXT, max_tokens=0, echo=True, logprobs=3).choices
    ids = ids_of(tiny_server)
    expected = reference(ids)
    found = choice.logprobs
    assert choice.text == TEXT and choice.finish_reason == "length"
    assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
    np.testing.assert_allclose(found.token_logprobs[1:], expected[np.arange(len(ids) - 1), ids[1:]], atol=1e-4)
    for at, top in enumerate(found.top_logprobs[1:]):
        assert abs(max(top.values()) - expected[at].max()) < 1e-4
        assert found.token_logprobs[at + 1] in top.values() or found.tokens[at + 1] == "\ufffd"
    assert len(found.tokens) == len(found.text_offset) == len(ids)
    words = [TEXT[start:end] for start, end in zip(found.text_offset, [*found.text_offset[1:], None], strict=True)]
    assert "".join(words) == TEXT
    assert all(word == token for word, token in zip(words, found.tokens, strict=True) if "\ufffd" not in token)


def test_a_text_has_the_log_probabilities_of_when_it_was_sampled(tiny_server):
    ids = ids_of(tiny_server)
    said = complete(tiny_server, prompt=ids, max_tokens=8, logprobs=1).choices[0]
    both = complete(tiny_server, prompt=ids, max_tokens=8, echo=True, logprobs=1).choices[0]
    assert both.text == TEXT + said.text
    assert both.logprobs.token_logprobs[len(ids) :] == said.logprobs.token_logprobs
    assert both.logprobs.text_offset[len(ids) :] == said.logprobs.text_offset
    assert said.logprobs.text_offset[0] == len(TEXT)  # with and without echo counted from the prompt's beginning


def test_one_entry_more_than_the_prompt_has_even_where_the_model_stops_at_once(tiny_server):
    """lm-eval asks for one token, and leaves the last entry out."""
    for stop in sorted(tiny_server.service.llama.tokenizer.stop_ids)[:1]:
        (choice,) = complete(tiny_server, prompt=TEXT, max_tokens=1, echo=True, logprobs=1, logit_bias={str(stop): 100}).choices
        assert choice.finish_reason == "stop" and choice.text == TEXT
        assert len(choice.logprobs.token_logprobs) == len(ids_of(tiny_server)) + 1
        assert choice.logprobs.tokens[-1] in tiny_server.service.llama.tokenizer.special_ids


def test_ids_several_prompts_and_several_answers_each_have_their_echo(tiny_server):
    prompts = [TEXT, "in the", "x"]
    reply = complete(tiny_server, prompt=[ids_of(tiny_server, text) for text in prompts], n=2, max_tokens=2, echo=True, logprobs=0)
    assert [choice.index for choice in reply.choices] == list(range(6))
    for choice in reply.choices:
        text = prompts[choice.index // 2]
        alone = complete(tiny_server, prompt=text, max_tokens=0, echo=True, logprobs=0).choices[0].logprobs
        assert choice.text.startswith(text)
        assert choice.logprobs.token_logprobs[: len(alone.tokens)] == alone.token_logprobs
        assert choice.logprobs.text_offset[: len(alone.tokens)] == alone.text_offset
        assert all(top is None or list(top) == [token] for top, token in zip(alone.top_logprobs, alone.tokens, strict=True))
    assert reply.usage.prompt_tokens == sum(len(ids_of(tiny_server, text)) for text in prompts)


def test_a_stream_of_an_echo_has_the_same(tiny_server):
    fields = {"prompt": TEXT, "max_tokens": 6, "echo": True, "logprobs": 2}
    (whole,) = complete(tiny_server, **fields).choices
    pieces = [chunk.choices[0] for chunk in complete(tiny_server, **fields, stream=True) if chunk.choices]
    assert "".join(piece.text for piece in pieces) == whole.text and pieces[0].text == TEXT
    streamed = [piece.logprobs for piece in pieces if piece.logprobs]
    for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
        assert [entry for one in streamed for entry in getattr(one, name)] == getattr(whole.logprobs, name)


def test_an_echo_leaves_later_answers_as_they_were(tiny_server):
    """What was scored is in the cache as a prefill leaves it, to the last bit."""
    fields = {"prompt": TEXT * 3, "max_tokens": 12, "logprobs": 1}
    before = complete(tiny_server, **fields).choices[0]
    complete(tiny_server, **fields, echo=True)
    assert complete(tiny_server, **fields).choices[0].logprobs == before.logprobs


def test_an_echo_without_log_probabilities_is_the_text_alone(serve):
    llama = FakeLlama(["a time"])
    server = serve(llama)
    create = client(server).completions.create
    (choice,) = create(model="stacy", prompt="Once upon", echo=True).choices
    assert (choice.text, choice.logprobs, choice.finish_reason) == ("Once upona time", None, "stop")
    (choice,) = create(model="stacy", prompt="Once upon", echo=True, max_tokens=0).choices
    assert (choice.text, choice.finish_reason) == ("Once upon", "length")
    (choice,) = create(model="stacy", prompt="One. STOP two", echo=True, stop="STOP").choices
    assert choice.text == "One. STOP twoa time"  # stop strings end what is generated


def test_what_is_echoed_is_never_cut(serve):
    server = serve(FakeLlama(["la"], max_context=400))
    for prompt in ("la " * 500, [5] * 401):
        with pytest.raises(openai.BadRequestError, match="context_length_exceeded.*one that is echoed is not cut") as refused:
            client(server).completions.create(model="stacy", prompt=prompt, echo=True, max_tokens=0)
        assert refused.value.code == "context_length_exceeded"
    assert client(server).completions.create(model="stacy", prompt=[5] * 400, echo=True, max_tokens=1).choices[0].finish_reason


def test_scoring_takes_turns_and_its_pieces_are_the_whole(tiny_server):
    """A pass at a time, whatever stands in the cache."""
    llama, ids, passes = tiny_server.service.llama, ids_of(tiny_server, TEXT * 5), []
    cache, scored = llama.new_cache(), []
    llama.prefill([1, 2, 3], cache)

    def run():
        scored.extend((yield from score(llama, ids, 1, cache)))

    for _ in run():
        passes.append(len(cache.tokens))
    assert len(passes) > 2 and passes[-1] == len(ids) and cache.tokens == ids
    logits = llama.logits(ids).astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    expected = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose([one.logprob for one in scored[1:]], expected[np.arange(len(ids) - 1), ids[1:]], atol=1e-5)


def test_a_double_that_has_no_logits_scores_nothing():
    llama, found = FakeLlama([["x"] * 50]), []

    def run():
        found.extend((yield from score(llama, (10, 11, 12), 1, llama.new_cache())))

    list(run())
    assert found == [UnscoredToken(10), UnscoredToken(11), UnscoredToken(12)]


def test_scoring_puts_no_conversation_out_of_its_slot(tiny_server):
    chat = client(tiny_server).chat.completions.create
    talk = [{"role": role, "content": "Hello there, how are you?"} for role in ("user", "assistant", "user")]
    answer = chat(model="tiny", messages=talk, max_tokens=4, temperature=0)
    slots: Slots = tiny_server.service.scheduler.slots
    for _ in range(slots.most + 2):
        complete(tiny_server, prompt=TEXT, max_tokens=1, echo=True, logprobs=1)
    talk += [{"role": "assistant", "content": answer.choices[0].message.content}, {"role": "user", "content": "And?"}]
    assert chat(model="tiny", messages=talk, max_tokens=1).usage.prompt_tokens_details.cached_tokens >= answer.usage.prompt_tokens - 1
