"""Servers as processes of their own, and the plainest of streaming clients, for bench.server and bench.server_soak."""

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
LOADING = 300.0  # seconds
PYTHON_SERVER = ("llama_cpp", "fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")


@dataclass(frozen=True)
class Served:
    """A server that answers."""

    name: str
    url: str  # with /v1
    model: str
    pid: int

    @property
    def health(self) -> str:
        """Where it says how it is."""
        return f"{self.url.removesuffix('/v1')}/health"

    def rss(self) -> int:
        """Resident bytes, as Linux tells them; 0 elsewhere."""
        try:
            text = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        return int(found[1]) * 1024 if found else 0


@contextmanager
def townhall(
    model: Path | None, flags: Sequence[str] = (), bare: bool = False, root: Path = ROOT, threads: int | None = None
) -> Iterator[Served]:
    """`townhall serve` of a checkout, ready; Stacy is asked, or the bare model, which other servers have too."""
    chosen = ["--model", str(model)] if model else []
    command = [sys.executable, "-m", "townhall", "serve", "--port", (port := free_port()), *chosen, *flags]
    with _running(command, port, root, {"THREADS": str(threads)} if threads else {}) as (url, pid):
        named = httpx.get(f"{url}/models").json()["data"]
        yield Served("townhall", url, named[-1]["id"] if bare else "stacy", pid)


@contextmanager
def llama_cpp(model: Path, slots: int, context: int) -> Iterator[Served]:
    """llama.cpp's server: its own program where it is on the PATH, else the one that llama-cpp-python brings (one slot)."""
    if binary := shutil.which("llama-server"):
        with llama_server(Path(binary), model, slots, context) as served:
            yield served
        return
    port = free_port()
    if all(importlib.util.find_spec(name) for name in PYTHON_SERVER):
        command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--port", port, "--n_ctx", str(context)]
        # its defaults are half of the cores, and to break an answer off when somebody else asks
        command += ["--n_threads", "-1", "--n_threads_batch", "-1", "--interrupt_requests", "false"]
    else:
        sys.exit("bench.server: --against llama.cpp needs llama-server on the PATH, or pip install 'townhall[bench]'")
    with _running(command, port) as (url, pid):
        yield Served("llama.cpp", url, httpx.get(f"{url}/models").json()["data"][0]["id"], pid)


@contextmanager
def named_server(path: Path, model: Path, slots: int, context: int, threads: int | None = None) -> Iterator[Served]:
    """What --against PATH names: another checkout of Townhall (a folder), or llama.cpp's llama-server (a program)."""
    if path.is_dir():
        with townhall(model, ["--slots", str(slots), "--max-context", str(context)], bare=True, root=path, threads=threads) as served:
            yield dataclasses.replace(served, name=path.name[:11])
    elif path.is_file() and os.access(path, os.X_OK):
        with llama_server(path, model, slots, context, threads) as served:
            yield served
    else:
        sys.exit(f"bench.server: --against {path} is no checkout of Townhall and no program; name a folder, or llama.cpp's llama-server")


@contextmanager
def llama_server(binary: Path, model: Path, slots: int, context: int, threads: int | None = None) -> Iterator[Served]:
    """llama.cpp's own program, with as many sequences in a batch as there are slots."""
    port = free_port()
    command = [str(binary), "-m", str(model), "--port", port, "-np", str(slots), "-c", str(slots * context), "--log-disable"]
    command += ["-t", str(threads), "-tb", str(threads)] if threads else []
    with _running(command, port) as (url, pid):
        yield Served("llama.cpp", url, httpx.get(f"{url}/models").json()["data"][0]["id"], pid)


@contextmanager
def _running(
    command: Sequence[str], port: str, root: Path = ROOT, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    surroundings = {**os.environ, **(environment or {})}
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=surroundings)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        ends = time.monotonic() + LOADING
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > ends:
                sys.exit(f"bench.server: {' '.join(command)} does not answer")
            time.sleep(0.2)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:  # llama-server lists its model while it is still being loaded; its Python server has no /health
        listed, health = httpx.get(f"{url}/models", timeout=5), httpx.get(f"{url.removesuffix('/v1')}/health", timeout=5)
        return listed.status_code == 200 and health.status_code in (200, 404)
    except httpx.TransportError:
        return False


def free_port() -> str:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


async def chunks(client: httpx.AsyncClient, served: Served, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a streamed chat; HTTPStatusError for an answer that is an error."""
    asked = {"model": served.model, "stream": True, "stream_options": {"include_usage": True}, **body}
    async with client.stream("POST", f"{served.url}/chat/completions", json=asked) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))


def at(values: Sequence[float], percent: int) -> float:
    """A percentile of at least one value."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
