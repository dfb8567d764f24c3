"""A swarm on this machine: two replicas behind Ray Serve. Skipped where the extra `swarm` is missing (`make test-swarm` installs it)."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

pytest.importorskip("ray")

# Ray has some ten processes, which are to be started on whatever machine this is
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("swarm")]
CHATS, TURNS = 20, 5
WORDS = 60
FILE = """\
port: {port}
grace: 60
models:
  echo: {{model: "fake:echo", replicas: 2, slots: 64, cpus: 0, max_context: 4096}}
  long: {{model: "fake:script={long}", slots: 64, cpus: 0}}
  slow: {{model: "fake:script={script}", replicas: 2, slots: 64, cpus: 0}}
"""


@dataclass
class Swarm:
    """One that answers."""

    folder: Path
    url: str

    def command(self, *words: str) -> str:
        """`townhall swarm …`; returns what it prints."""
        command = [sys.executable, "-m", "townhall", "swarm", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=800, env=self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_STATE_HOME": str(self.folder)}

    def replicas(self, model: str) -> dict[str, dict]:
        models = httpx.get(f"{self.url}/townhall/swarm", timeout=60).json()["models"]
        return {one["replica"]: one for found in models if found["name"] == model for one in found["replicas"]}

    def log(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "townhall/swarm/requests.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory) -> Iterator[Swarm]:
    folder = tmp_path_factory.mktemp("swarm")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "script.yaml").write_text(f"pause: 0.1\nreplies: ['{' '.join(['la'] * WORDS)}']\n")
    (folder / "long.yaml").write_text(f"pause: 1\nreplies: ['{' '.join(['la'] * 900)}']\n")
    (folder / "swarm.yaml").write_text(FILE.format(port=port, script=folder / "script.yaml", long=folder / "long.yaml"))
    started = Swarm(folder, f"http://127.0.0.1:{port}")
    started.command("up", str(folder / "swarm.yaml"))
    yield started
    started.command("down")
    assert not (folder / "townhall/swarm/cluster.json").exists()


def until(condition, seconds=300.0):
    """Wait for what other processes bring about."""
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, "that did not come about"
        time.sleep(0.2)
    return found


async def chat(http: httpx.AsyncClient, name: str) -> list[tuple[str, int, int]]:
    """Five turns; (replica, tokens of the prompt, of them cached) of each."""
    messages, turns = [], []
    for turn in range(TURNS):
        messages.append({"role": "user", "content": f"visitor {name} says {turn}"})
        reply = await http.post("/v1/chat/completions", json={"model": "echo", "messages": messages})
        usage = reply.json()["usage"]
        turns.append((reply.headers["x-townhall-replica"], usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]))
        messages.append(reply.json()["choices"][0]["message"])
    return turns


def test_conversations_return_to_the_replica_that_holds_them(swarm):
    async def talk():
        async with httpx.AsyncClient(base_url=swarm.url, timeout=300) as http:
            return await asyncio.gather(*(chat(http, f"{n}") for n in range(CHATS)))

    chats = asyncio.run(talk())
    returned = [later[0] == before[0] for turns in chats for before, later in zip(turns, turns[1:])]
    assert sum(returned) / len(returned) >= 0.95
    # and there its entries are: what the turn before came to, all but the last token, is not read again
    cached = [later[2] >= before[1] for turns in chats for before, later in zip(turns, turns[1:])]
    assert sum(cached) / len(cached) >= 0.95
    assert len(Counter(turns[0][0] for turns in chats)) == 2  # and yet both have work


async def stream(http: httpx.AsyncClient, begun: asyncio.Queue, n: int) -> tuple[str, str]:
    """(replica, all of the stream)."""
    body = {"model": "slow", "messages": [{"role": "user", "content": f"Sing {n}"}], "stream": True}
    async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        text, told = "", False
        async for piece in reply.aiter_text():
            text += piece
            if not told and '"content":"la"' in text:
                told = True
                begun.put_nowait(n)
        return reply.headers["x-townhall-replica"].partition("#")[2], text


def words(text: str) -> int:
    return text.count('la"')


def test_a_killed_replica_ends_its_own_streams_and_no_others(swarm):
    replicas = until(lambda: len(found := swarm.replicas("slow")) == 2 and found)
    victim = sorted(replicas)[0]
    lines = len(swarm.log())

    async def talk():
        begun: asyncio.Queue[int] = asyncio.Queue()
        async with httpx.AsyncClient(base_url=swarm.url, timeout=300) as http:
            streams = [asyncio.create_task(stream(http, begun, n)) for n in range(8)]
            for _ in streams:
                await asyncio.wait_for(begun.get(), 120)
            os.kill(replicas[victim]["pid"], signal.SIGKILL)
            return await asyncio.gather(*streams)

    streams = asyncio.run(talk())
    lost, kept = [text for name, text in streams if name == victim], [text for name, text in streams if name != victim]
    assert lost and kept
    for text in lost:
        assert '"code": "replica_lost"' in text and text.endswith("data: [DONE]\n\n") and words(text) < WORDS
    for text in kept:
        assert "replica_lost" not in text and words(text) == WORDS and '"finish_reason":"stop"' in text
    back = until(lambda: len(found := swarm.replicas("slow")) == 2 and victim not in found and found)
    assert all(one["health"]["status"] == "ok" for one in back.values())
    ends = [line for line in swarm.log()[lines:] if line["model"] == "slow" and line["event"] == "end"]
    begins = [line["id"] for line in swarm.log()[lines:] if line["model"] == "slow" and line["event"] == "begin"]
    assert sorted(line["id"] for line in ends) == sorted(begins) and len(ends) == 8
    assert Counter(line["how"] for line in ends) == {"lost": len(lost), "done": len(kept)}
    assert {line["replica"] for line in ends if line["how"] == "lost"} == {victim}
    metrics = httpx.get(f"{swarm.url}/metrics", timeout=60).text
    assert f'townhall_swarm_lost_total{{model="slow",replica="{victim}"}} {len(lost)}.0' in metrics
    assert all(f'replica="{name}"' in metrics for name in back)


def test_a_client_that_leaves_frees_its_slot(swarm):
    def active() -> int:
        return sum(one["health"]["slots"]["active"] for one in swarm.replicas("long").values())

    # a quarter of an hour, if it were waited for
    body = {"model": "long", "messages": [{"role": "user", "content": "Sing on"}], "stream": True, "max_tokens": 900}
    with httpx.stream("POST", f"{swarm.url}/v1/chat/completions", json=body, timeout=60) as reply:
        next(reply.iter_bytes())
        until(lambda: active() == 1)
    until(lambda: active() == 0)
    until(lambda: any(line["model"] == "long" and line.get("how") == "left" for line in swarm.log()))


def test_a_model_is_rolled_over_amid_streams_added_and_removed(swarm):
    before = swarm.replicas("slow")
    script = swarm.folder / "script.yaml"

    async def talk():
        begun: asyncio.Queue[int] = asyncio.Queue()
        async with httpx.AsyncClient(base_url=swarm.url, timeout=300) as http:
            streams = [asyncio.create_task(stream(http, begun, n)) for n in range(4)]
            for _ in streams:
                await asyncio.wait_for(begun.get(), 120)
            add = ["add", "slow", f"model=fake:script={script}", "replicas=2", "slots=32", "cpus=0"]
            rolled = asyncio.create_task(asyncio.to_thread(swarm.command, *add))
            return await asyncio.gather(*streams), await rolled

    streams, _ = asyncio.run(talk())
    assert all(words(text) == WORDS and "error" not in text for _, text in streams)
    after = until(lambda: len(found := swarm.replicas("slow")) == 2 and not found.keys() & before.keys() and found)
    assert {one["model"]["slots"] for one in after.values()} == {32}
    swarm.command("remove", "slow")
    assert "slow" not in [one["id"] for one in httpx.get(f"{swarm.url}/v1/models", timeout=60).json()["data"]]
    status = json.loads(swarm.command("status", "--json"))
    assert [one["name"] for one in status["models"]] == ["echo", "long"] and len(status["models"][0]["replicas"]) == 2


def test_nothing_listens_beyond_this_machine_and_nothing_is_reported(swarm):
    cluster = json.loads((swarm.folder / "townhall/swarm/cluster.json").read_text())
    logs = Path(cluster["scratch"]) / "session_latest"
    assert '"usage_stats"' not in (logs / "usage_stats.json").read_text() if (logs / "usage_stats.json").exists() else True
    assert "Usage stats collection is disabled" in (Path(cluster["scratch"]) / "start.log").read_text()
    assert ((swarm.folder / "townhall/swarm/token").stat().st_mode & 0o077) == 0
    own = {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == cluster["pid"]}
    assert len(own) > 4
    listening = {address for pid in own for address in _listeners(pid)}
    assert listening and not [address for address in listening if not address.startswith("127.")]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _listeners(pid: int) -> Iterator[str]:
    """Addresses at which a process listens, by the kernel's tables."""
    inodes = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        tables = [Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:] for table in ("tcp", "tcp6")]
    except OSError:  # it has ended meanwhile
        return
    for line in (line.split() for table in tables for line in table):
        if line[3] == "0A" and f"socket:[{line[9]}]" in inodes:
            raw = bytes.fromhex(line[1].partition(":")[0])
            words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
            yield socket.inet_ntop(socket.AF_INET6 if len(words) == 16 else socket.AF_INET, words).removeprefix("::ffff:")
