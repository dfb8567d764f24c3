"""/v1/embeddings by the served model: the mean of its hidden states, against a plain NumPy LLaMA."""

import base64
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings

from tests.reference import llama_numpy
from tests.townhall.server.test_openai_client import client, user

pytestmark = pytest.mark.slow
TEXTS = ["How far is the moon?", "Käse 🧀", "The dough rests.", "The dough rests. " * 40]


@pytest.fixture(scope="module")
def own(tiny_file, tiny_server):
    """float32 (texts, D) by NumPy."""
    reference, encode = llama_numpy.read_gguf(tiny_file), tiny_server.service.llama.tokenizer.encode
    means = np.stack([llama_numpy.hidden(encode(text), *reference).mean(axis=0) for text in TEXTS])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def test_the_openai_client_gets_the_mean_of_the_hidden_states(tiny_server, own):
    reply = client(tiny_server).embeddings.create(model="tiny", input=TEXTS)  # asks for base64 by itself
    np.testing.assert_allclose([item.embedding for item in reply.data], own, atol=1e-5)
    encode = tiny_server.service.llama.tokenizer.encode
    assert reply.model == "tiny" and reply.usage.prompt_tokens == reply.usage.total_tokens == sum(len(encode(text)) for text in TEXTS)
    assert [item.index for item in reply.data] == [0, 1, 2, 3]


def test_base64_is_the_floats_to_the_bit_and_a_texts_vector_depends_on_nothing_else(tiny_server):
    post = lambda **body: httpx.post(f"{tiny_server.url}/embeddings", json={"model": "tiny", **body}, timeout=60).json()["data"]  # noqa: E731
    floats, packed = post(input=TEXTS), post(input=TEXTS[::-1], encoding_format="base64")[::-1]
    for number, text in zip(floats, packed):
        assert np.array_equal(np.array(number["embedding"], np.float32), np.frombuffer(base64.b64decode(text["embedding"]), "<f4"))
        assert abs(np.linalg.norm(number["embedding"]) - 1) < 1e-6


def test_ids_and_dimensions(tiny_server, own):
    create, encode = client(tiny_server).embeddings.create, tiny_server.service.llama.tokenizer.encode
    for given in ([encode(text) for text in TEXTS], encode(TEXTS[0])):
        assert np.allclose(
            [item.embedding for item in create(model="tiny", input=given).data], own[: 1 if isinstance(given[0], int) else 4], atol=1e-5
        )
    (item,) = create(model="tiny", input=TEXTS[0], dimensions=16).data
    np.testing.assert_allclose(item.embedding, own[0, :16] / np.linalg.norm(own[0, :16]), atol=1e-5)


def test_langchain_gets_them_while_others_chat(tiny_server, own):
    embeddings = OpenAIEmbeddings(base_url=tiny_server.url, api_key="any", model="tiny", check_embedding_ctx_length=False)
    say = lambda n: client(tiny_server).chat.completions.create(model="tiny", messages=user(f"Hi {n}"), max_tokens=30, seed=n)  # noqa: E731
    with ThreadPoolExecutor(4) as pool:
        chats = [pool.submit(say, n) for n in range(3)]
        np.testing.assert_allclose(pool.submit(embeddings.embed_documents, TEXTS).result(60), own, atol=1e-5)
        assert all(chat.result(60).choices[0].finish_reason for chat in chats)


@pytest.mark.parametrize(
    "fields, fault",
    [
        ({"input": [1 << 20]}, "is no token of this model"),
        ({"input": "the " * 3000}, "context_length_exceeded: this model's maximum context length is 1536 tokens"),
        ({"input": "x" * 1_000_000}, "context_length_exceeded"),
        ({"input": "a", "dimensions": 65}, "tiny makes vectors of 64 numbers"),
    ],
)
def test_what_cannot_be_embedded_is_refused(tiny_server, fields, fault):
    with pytest.raises(openai.BadRequestError, match=fault):
        client(tiny_server).embeddings.create(model="tiny", **fields)


def test_a_model_without_hidden_states_says_so(serve):
    with pytest.raises(openai.BadRequestError, match="this model makes no embeddings"):
        client(serve()).embeddings.create(model="double", input="a")
