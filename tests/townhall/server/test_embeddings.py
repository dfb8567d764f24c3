"""/v1/embeddings as openai-python and LangChain meet it: the embedder's own vectors, to the bit in base64."""

import base64

import httpx
import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings

from tests.townhall.server.test_openai_client import client
from townhall.library.embedder import NAME, default_embedder

pytestmark = pytest.mark.slow
TEXTS = ["How far is the moon?", "Käse 🧀", "The dough rests."]


@pytest.fixture(scope="module")
def own():
    return default_embedder().embed(TEXTS)


def post(server, status=200, **body):
    reply = httpx.post(f"{server.url}/embeddings", json=body)
    assert reply.status_code == status, reply.text
    return reply


def test_the_openai_client_gets_the_vectors(serve, own):
    reply = client(serve()).embeddings.create(model=NAME, input=TEXTS)  # asks for base64 by itself
    assert [item.index for item in reply.data] == [0, 1, 2] and reply.model == NAME and reply.object == "list"
    assert np.array_equal(np.array([item.embedding for item in reply.data], np.float32), own)
    assert reply.usage.prompt_tokens == reply.usage.total_tokens == sum(map(default_embedder().token_count, TEXTS))
    (one,) = client(serve()).embeddings.create(model=NAME, input=TEXTS[0], encoding_format="float").data
    assert np.array_equal(np.array(one.embedding, np.float32), own[0])


def test_base64_is_the_floats_to_the_bit(serve, own):
    server = serve()
    floats = post(server, input=TEXTS).json()["data"]
    packed = post(server, input=TEXTS, encoding_format="base64").json()["data"]
    for number, text in zip(floats, packed):
        assert np.array_equal(np.array(number["embedding"], np.float32), np.frombuffer(base64.b64decode(text["embedding"]), "<f4"))


def test_dimensions_keep_the_first_numbers_at_length_one(serve, own):
    (item,) = client(serve()).embeddings.create(model=NAME, input=TEXTS[0], dimensions=64).data
    assert np.allclose(item.embedding, own[0, :64] / np.linalg.norm(own[0, :64]), atol=1e-6)


def test_ids_are_those_of_the_embedder(serve, own):
    ids = default_embedder()._ids(TEXTS)
    for given, wanted in ((ids, own), (ids[0], own[:1])):
        reply = client(serve()).embeddings.create(model=NAME, input=given)
        assert np.allclose([item.embedding for item in reply.data], wanted, atol=1e-6)


def test_langchain_gets_the_vectors(serve, own):
    embeddings = OpenAIEmbeddings(base_url=serve().url, api_key="any", model=NAME, check_embedding_ctx_length=False)
    assert np.allclose(embeddings.embed_documents(TEXTS), own, atol=1e-6) and np.allclose(
        embeddings.embed_query(TEXTS[1]), own[1], atol=1e-6
    )


@pytest.mark.parametrize(
    "body, fault",
    [
        ({"input": ""}, "input: pass 1 to 2048 texts, none of them empty"),
        ({"input": []}, "input: pass 1 to 2048 texts"),
        ({"input": ["a", ""]}, "none of them empty"),
        ({"input": ["a"] * 2049}, "input: pass 1 to 2048 texts"),
        ({"input": ["a"] * 20000}, "more than the 16384"),
        ({"input": [32000]}, f"32000 is no token of {NAME}, which has 32000; send text"),
        ({"input": [[1, -1]]}, "-1 is no token"),
        ({"input": 5}, "input: "),
        ({}, "input: Field required"),
        ({"input": "a", "dimensions": 0}, "dimensions: "),
        ({"input": "a", "dimensions": 257}, "dimensions: wordllama-l2-supercat-256 makes vectors of 256"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format: "),
    ],
)
def test_wrong_requests_are_refused_by_name(serve, body, fault):
    error = post(serve(), 400, **body).json()["error"]
    assert fault in error["message"] and error["type"] == "invalid_request_error"


def test_another_model_is_warned_of_or_refused(serve):
    reply = post(serve(), model="text-embedding-3-small", input="a")
    assert (
        reply.json()["model"] == NAME
        and reply.headers["X-Townhall-Warning"] == f"'text-embedding-3-small' makes no embeddings; {NAME} and 'double' do"
    )
    strict = serve(strict_model=True)
    assert post(strict, model=NAME, input="a") and post(strict, 404, model="stacy", input="a").json()["error"]["code"] == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client(strict).embeddings.create(model="stacy", input="a")


def test_without_the_table_it_is_said_how_to_get_it(serve, monkeypatch):
    from townhall.server import embeddings

    monkeypatch.setattr(embeddings, "default_embedder", lambda: None)
    assert "pip install 'townhall[library]'" in post(serve(), 400, input="a").json()["error"]["message"]
