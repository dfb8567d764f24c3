"""The front of a swarm over replicas in this process: the same application as a server's, without Ray."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from townhall.server.errors import APIError
from townhall.server.serve_options import ServeOptions
from townhall.swarm.front import Front, FrontSettings
from townhall.swarm.relay import ReplicaLost
from townhall.swarm.replica import ModelReplica
from townhall.swarm.swarm_file import parse_model

pytestmark = pytest.mark.slow
HI = [{"role": "user", "content": "one two three"}]


class LocalAnswer:
    """Of a replica in this process; one that is `broken` is lost after so many pieces (0: before the first)."""

    def __init__(self, replica, request, broken):
        self._replica, self._request, self._broken = replica, request, broken
        self.replica, self.outcome, self.remembered, self.closed = None, "any", [], False

    async def __aiter__(self) -> AsyncIterator:
        left = self._broken
        async for piece in self._replica.ask(self._request):
            if left == 0:
                raise ReplicaLost
            left = left and left - 1
            self.replica = self._replica._name
            yield piece

    async def whole(self, seconds):
        return b"".join([piece async for piece in self if isinstance(piece, bytes)])

    def remember(self, digest):
        self.remembered.append(digest)

    def close(self):
        self.closed = True


class LocalModel:
    """A model with replicas in this process, asked in turn; `broken` has what is wrong with the next answers."""

    def __init__(self, name, replicas=1, position=0, **flags):
        model = parse_model(name, {"model": "fake:echo", "persona": ["stacy"], **flags}, position)
        self.name, self.broken, self.answers, self._turn = name, [], [], 0
        self.replicas = [ModelReplica(model, 1.0, f"r{n}") for n in range(replicas)]

    def ask(self, request, digests):
        replica = self.replicas[self._turn % len(self.replicas)]
        self._turn += 1
        broken = self.broken.pop(0) if self.broken else None
        if isinstance(broken, Exception):
            raise broken
        self.answers.append(LocalAnswer(replica, request, broken))
        return self.answers[-1]

    async def describe(self):
        return [await replica.describe() for replica in self.replicas]

    async def metrics(self):
        return [(replica._name, await replica.metrics()) for replica in self.replicas]


def swarm(tmp_path, *models, **options):
    settings = FrontSettings(ServeOptions("swarm", (), **options), str(tmp_path / "log" / "requests.jsonl"), lambda: list(models))
    return Front(settings)


def client(front, **headers):
    return httpx.AsyncClient(transport=httpx.ASGITransport(front.application), base_url="http://127.0.0.1", headers=headers, timeout=60)


def asked(model, **fields):
    return {"model": model, "messages": HI, **fields}


def log(tmp_path):
    return [json.loads(line) for line in (tmp_path / "log" / "requests.jsonl").read_text().splitlines()]


def test_models_are_listed_and_each_name_finds_its_own(tmp_path):
    small, large = LocalModel("small", position=1), LocalModel("large", position=0, persona=["stacy", "gary"])

    async def talk():
        async with client(swarm(tmp_path, small, large)) as http:
            listed = (await http.get("/v1/models")).json()["data"]
            assert [one["id"] for one in listed] == ["stacy", "gary", "large", "stacy@small", "small"]
            for name, model, said in (
                ("small", "small", "small"),
                ("stacy@small", "small", "stacy"),
                ("stacy", "large", "stacy"),
                ("large:latest", "large", "large"),
                ("unknown", "large", "large"),
            ):
                reply = await http.post("/v1/chat/completions", json=asked(name))
                assert reply.json()["model"] == said and reply.json()["choices"][0]["message"]["content"] == "one two three"
                assert reply.headers["x-townhall-replica"] == f"{model}#r0"
                assert ("x-townhall-warning" in reply.headers) == (name == "unknown")
            assert (await http.get("/v1/models/stacy@small")).json()["id"] == "stacy@small"
            assert (await http.get("/v1/models/absent")).status_code == 404
            tags = await http.get("/api/tags")
            assert tags.status_code == 200, tags.text
            tags = tags.json()["models"]
            assert [one["name"] for one in tags] == ["stacy:latest", "gary:latest", "large:latest", "stacy@small:latest", "small:latest"]
            assert (await http.post("/api/show", json={"model": "small"})).status_code == 200
            kept = await http.get("/townhall/chats")
            assert kept.status_code == 404 and "`townhall serve`" in kept.json()["error"]["message"]
            assert (await http.get("/health")).json() == {"status": "ok", "models": ["large", "small"]}

    asyncio.run(talk())


@pytest.mark.parametrize("streamed", [False, True])
def test_a_replica_that_is_lost_before_a_word_costs_nothing(tmp_path, streamed):
    model = LocalModel("m", replicas=2)

    async def talk():
        async with client(swarm(tmp_path, model)) as http:
            await http.get("/v1/models")
            model.broken = [0] if streamed else [1, 0]  # what is not streamed may be asked again though its head was there
            reply = await http.post("/v1/chat/completions", json=asked("m", stream=streamed))
            assert reply.status_code == 200 and ("three" in reply.text)
            return (await http.get("/metrics")).text

    metrics = asyncio.run(talk())
    events = log(tmp_path)
    assert [line["event"] for line in events] == ["retry", "begin", "end"] if streamed else ["begin", "retry", "retry", "begin", "end"]
    assert events[-1]["how"] == "done" and events[-1]["status"] == 200 and len({line["id"] for line in events}) == 1
    assert f'townhall_swarm_retried_total{{model="m"}} {1 if streamed else 2}.0' in metrics
    assert all(answer.closed for answer in model.answers)


def test_replicas_that_are_all_lost_are_an_error(tmp_path):
    model = LocalModel("m")

    async def talk():
        async with client(swarm(tmp_path, model)) as http:
            await http.get("/v1/models")
            model.broken = [0, 0, 0]
            return await http.post("/v1/chat/completions", json=asked("m"))

    reply = asyncio.run(talk())
    assert reply.status_code == 503 and reply.json()["error"]["code"] == "replica_lost"


@pytest.mark.parametrize(
    "path, body, last",
    [
        ("/v1/chat/completions", asked("m", stream=True), 'data: {"error": {"message": "the replica that wrote this answer was lost'),
        ("/v1/responses", {"model": "m", "input": "one two", "stream": True}, 'event: error\ndata: {"type": "error", "code": "replica_l'),
        ("/api/chat", asked("m"), '{"error":"the replica that wrote this answer was lost; ask again"}\n'),
    ],
)
def test_a_stream_whose_replica_is_lost_ends_with_an_error(tmp_path, path, body, last):
    model = LocalModel("m")

    async def talk():
        async with client(swarm(tmp_path, model)) as http:
            await http.get("/v1/models")
            model.broken = [2]  # the head and the first piece come through
            return (await http.post(path, json=body)).text

    text = asyncio.run(talk())
    assert last in text and not text.startswith(last)
    assert text.endswith("data: [DONE]\n\n") == (path == "/v1/chat/completions")
    assert log(tmp_path)[-1]["how"] == "lost" and log(tmp_path)[-1]["replica"] == "r0"


def test_a_reply_is_remembered_as_the_next_request_has_it(tmp_path):
    from townhall.swarm.prefix_digests import prefix_digests

    model = LocalModel("m")
    later = prefix_digests({"model": "m", "messages": [*HI, {"role": "assistant", "content": "one two three"}, *HI]})

    async def talk():
        async with client(swarm(tmp_path, model)) as http:
            for stream in (False, True):
                await http.post("/v1/chat/completions", json=asked("m", stream=stream))

    asyncio.run(talk())
    assert [answer.remembered for answer in model.answers] == [[later[1]], [later[1]]]


def test_the_guard_stands_before_the_swarm(tmp_path):
    model = LocalModel("m")

    async def talk():
        async with client(swarm(tmp_path, model, keys=("secret",))) as http:
            assert (await http.get("/v1/models")).status_code == 401
            assert (await http.get("/townhall/swarm")).status_code == 401
            assert (await http.get("/health")).status_code == 200
            reply = await http.post("/v1/chat/completions", json=asked("m"), headers={"Authorization": "Bearer secret"})
            assert reply.status_code == 200
            assert not any(name == b"authorization" for name, _ in model.answers[-1]._request.headers)
        async with client(swarm(tmp_path, model, hosts=("127.0.0.1",)), host="evil.example") as http:
            assert (await http.get("/v1/models")).status_code == 403
        async with client(swarm(tmp_path, model)) as http:
            assert (await http.get("/v1/models", headers={"Origin": "http://evil.example"})).status_code == 403
            assert (await http.post("/v1/chat/completions", content=b"x" * (2 << 20))).status_code == 413
            assert (await http.post("/v1/chat/completions", content=b"{broken")).status_code == 400

    asyncio.run(talk())
    assert "secret" not in (tmp_path / "log" / "requests.jsonl").read_text()


def by_replica(text: str, name: str) -> dict[str, float]:
    """A metric of the model m."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples if sample.name == name]
    return {sample.labels["replica"]: sample.value for sample in samples if sample.labels["model"] == "m"}


def test_metrics_say_which_replica(tmp_path):
    model = LocalModel("m", replicas=2)

    async def talk():
        async with client(swarm(tmp_path, model)) as http:
            for _ in range(3):
                await http.post("/v1/chat/completions", json=asked("m"))
            text = ""
            async with asyncio.timeout(60):  # a replica counts a reply after its last piece is out
                while sum(by_replica(text, "townhall_completion_tokens_total").values()) < 9:
                    text = (await http.get("/metrics")).text
            return text

    text = asyncio.run(talk())
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)  # each once, as Prometheus asks
    assert by_replica(text, "townhall_swarm_requests_total") == {"r0": 2, "r1": 1}
    assert by_replica(text, "townhall_completion_tokens_total") == {"r0": 6, "r1": 3}


def test_an_error_of_the_router_is_the_clients(tmp_path):
    model = LocalModel("m")

    async def talk():
        async with client(swarm(tmp_path, model)) as http:
            await http.get("/v1/models")
            model.broken = [APIError(429, "all replicas are full", code="queue_full", retry_after=5)]
            return await http.post("/v1/chat/completions", json=asked("m"))

    reply = asyncio.run(talk())
    assert reply.status_code == 429 and reply.headers["retry-after"] == "5"
