"""Deltas both ways, their resumption, and everything that can be wrong with one; checksum lists and downloads beside them."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.models.llama.deltas import delta_file, xor
from app.models.llama.deltas.checksums import PUBLISHED, ChecksumError, read_list, verify
from app.models.llama.deltas.delta_file import DeltaError
from app.models.llama.deltas.download import DownloadError, fetch, read_urls
from app.models.llama.deltas.xor import CHUNK
from townhall.cli.main import main

pytestmark = pytest.mark.slow

BASE_SIZE = CHUNK + 4321


def noise(path: Path, size: int, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.random.default_rng(seed).bytes(size))
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return noise(tmp_path / "base.pth", BASE_SIZE, 0)


def by_hand(plain: bytes, base: bytes) -> bytes:
    repeated = (base * (len(plain) // len(base) + 1))[: len(plain)]
    return hashlib.sha256(plain).digest() + bytes(a ^ b for a, b in zip(plain, repeated, strict=True))


@pytest.mark.parametrize("size", [0, 1, 5000, CHUNK, BASE_SIZE, BASE_SIZE + 1, 3 * BASE_SIZE + 77, 8 * CHUNK])
def test_a_delta_made_and_applied_gives_the_same_bytes(size: int, base: Path, tmp_path: Path) -> None:
    plain = noise(tmp_path / "plain" / "model.bin", size, 1)
    (made,) = delta_file.make(base, [plain], tmp_path / "enc")
    assert made.name == f"model.bin.{hashlib.sha256(plain.read_bytes()).hexdigest()}.enc"
    (result,) = delta_file.apply(base, [made], tmp_path / "out")
    assert result == tmp_path / "out" / "model.bin" and result.read_bytes() == plain.read_bytes()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.bin"]


def test_the_format_is_digest_then_xor_with_the_base_repeated(tmp_path: Path) -> None:
    base, plain = noise(tmp_path / "short", 37, 0), noise(tmp_path / "plain", 1000, 1)
    (made,) = delta_file.make(base, [plain], tmp_path / "enc")
    assert made.read_bytes() == by_hand(plain.read_bytes(), base.read_bytes())


def test_several_files_at_once_and_progress_adds_up(base: Path, tmp_path: Path) -> None:
    plains = [noise(tmp_path / "plain" / f"{n}.bin", n * 700_000 + 1, n) for n in range(5)]
    made = delta_file.make(base, plains, tmp_path / "enc")
    seen: list[int] = []
    results = delta_file.apply(base, made, tmp_path / "out", seen.append)
    assert [path.read_bytes() for path in results] == [path.read_bytes() for path in plains]
    assert sum(seen) == sum(path.stat().st_size for path in made)


@pytest.fixture
def one(base: Path, tmp_path: Path) -> tuple[Path, Path]:
    """(plain, its delta)."""
    plain = noise(tmp_path / "plain" / "model.bin", 4 * CHUNK + 99, 1)
    return plain, delta_file.make(base, [plain], tmp_path / "enc")[0]


def test_a_part_is_taken_up_where_it_ended(base: Path, one: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, made = one
    (tmp_path / "out").mkdir()
    part = tmp_path / "out" / "model.bin.part"
    part.write_bytes(plain.read_bytes()[: 3 * CHUNK + 5])
    starts = []
    plainly = xor.Repeated.xor

    def watch(self: xor.Repeated, chunk: np.ndarray, at: int, out: np.ndarray) -> np.ndarray:
        starts.append(at)
        return plainly(self, chunk, at, out)

    monkeypatch.setattr(xor.Repeated, "xor", watch)
    (result,) = delta_file.apply(base, [made], tmp_path / "out")
    assert result.read_bytes() == plain.read_bytes() and min(starts) == 3 * CHUNK


@pytest.mark.parametrize("files", [1, 4])
def test_ctrl_c_ends_every_file_and_another_run_takes_them_up(
    files: int, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plains = [noise(tmp_path / "plain" / f"{n}.bin", 6 * CHUNK, n) for n in range(files)]
    made, out = delta_file.make(base, plains, tmp_path / "enc"), tmp_path / "out"
    reached, jobs = threading.Event(), list[delta_file._Job]()
    prepare = delta_file._Job.__post_init__

    def hold(n: int) -> None:  # until the job is told to stop
        reached.set()
        jobs[0].stopped.wait(60)

    def interrupt(self: object) -> None:
        reached.wait(60)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(delta_file._Job, "__post_init__", lambda job: (prepare(job), jobs.append(job)))
        patch.setattr("concurrent.futures.Future.exception", interrupt)
        with pytest.raises(KeyboardInterrupt):
            delta_file.apply(base, made, out, hold)
    parts = list(out.iterdir())
    assert parts and all(part.suffix == ".part" and part.stat().st_size < 6 * CHUNK for part in parts)
    assert [path.read_bytes() for path in delta_file.apply(base, made, out)] == [path.read_bytes() for path in plains]


def test_a_part_of_something_else_is_begun_anew(base: Path, one: tuple[Path, Path], tmp_path: Path) -> None:
    noise(tmp_path / "out" / "model.bin.part", 2 * CHUNK, 9)
    (result,) = delta_file.apply(base, [one[1]], tmp_path / "out")
    assert result.read_bytes() == one[0].read_bytes()


def test_a_finished_file_is_left_alone_and_a_damaged_one_replaced(base: Path, one: tuple[Path, Path], tmp_path: Path) -> None:
    (result,) = delta_file.apply(base, [one[1]], tmp_path / "out")
    before = result.stat()
    delta_file.apply(base, [one[1]], tmp_path / "out")
    assert result.stat().st_mtime_ns == before.st_mtime_ns and result.stat().st_ino == before.st_ino
    result.write_bytes(b"x" * before.st_size)
    delta_file.apply(base, [one[1]], tmp_path / "out")
    assert result.read_bytes() == one[0].read_bytes()


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def test_a_wrong_base_is_named_and_leaves_nothing(one: tuple[Path, Path], tmp_path: Path) -> None:
    wrong = noise(tmp_path / "wrong.pth", BASE_SIZE, 7)
    with pytest.raises(DeltaError, match=r"model\.bin\..*enc does not give model.bin with .*wrong.pth"):
        delta_file.apply(wrong, [one[1]], tmp_path / "out")
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize("keep, fault", [(0, "only 0 bytes"), (31, "only 31 bytes"), (32, "does not give"), (CHUNK, "does not give")])
def test_a_truncated_delta_is_named_and_leaves_nothing(keep: int, fault: str, base: Path, one: tuple[Path, Path], tmp_path: Path) -> None:
    one[1].write_bytes(one[1].read_bytes()[:keep])
    with pytest.raises(DeltaError, match=fault):
        delta_file.apply(base, [one[1]], tmp_path / "out")
    assert left(tmp_path / "out") == []


def test_what_is_missing_or_misnamed_is_named(base: Path, one: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DeltaError, match="nowhere, the base, does not exist"):
        delta_file.apply(tmp_path / "nowhere", [one[1]], tmp_path / "out")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(DeltaError, match="the base, is empty"):
        delta_file.apply(tmp_path / "empty", [one[1]], tmp_path / "out")
    with pytest.raises(DeltaError, match="the base, is not a file"):
        delta_file.apply(tmp_path, [one[1]], tmp_path / "out")
    with pytest.raises(DeltaError, match="a delta, does not exist"):
        delta_file.apply(base, [tmp_path / f"a.{'0' * 64}.enc"], tmp_path / "out")
    for name in ("model.bin", f"..{'0' * 64}.enc", f"...{'0' * 64}.enc", "a.xyz.enc"):
        with pytest.raises(DeltaError, match="is not called NAME"):
            delta_file.apply(base, [noise(tmp_path / "odd" / name, 100, 2)], tmp_path / "out")
    renamed = one[1].rename(tmp_path / f"model.bin.{'0' * 64}.enc")
    with pytest.raises(DeltaError, match="another digest than its name"):
        delta_file.apply(base, [renamed], tmp_path / "out")
    with pytest.raises(DeltaError, match="both make model.bin"):
        delta_file.apply(base, [renamed, tmp_path / "again" / renamed.name], tmp_path / "out")


def test_the_published_lists_ship_with_the_package() -> None:
    entries = read_list(Path("point-alpaca"))
    assert len(entries) == 25 and {entry.algorithm for entry in entries} == {"md5"}
    assert sum(entry.name.startswith("encrypted/") for entry in entries) == 12
    assert ("6efc8dab194ab59e49cd24be5574d85e", "original/7B/consolidated.00.pth") in [(entry.digest, entry.name) for entry in entries]
    assert PUBLISHED["point-alpaca"].exists()


def test_files_are_held_against_lists_of_either_kind(tmp_path: Path) -> None:
    noise(tmp_path / "a", 100, 1), noise(tmp_path / "b", 3 << 20, 2)
    digests = {name: (tmp_path / name).read_bytes() for name in "ab"}
    lines = [
        f"{hashlib.sha256(digests['a']).hexdigest()}  a",
        f"{hashlib.md5(digests['b']).hexdigest().upper()} *b",
        f"{'0' * 32}  a",
        f"{'0' * 32}  c",
    ]
    (tmp_path / "list").write_text("# a comment\n\n" + "\n".join(lines) + "\n")
    assert [result for _, result in verify(read_list(tmp_path / "list"), tmp_path)] == ["OK", "OK", "FAILED", "missing"]


@pytest.mark.parametrize("text", ["", "hello world\n", "abc  a\n", f"{'0' * 33}  a\n", f"{'0' * 32}  a\x1b[2J\n"])
def test_a_list_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(ChecksumError, match="list"):
        read_list(tmp_path / "list")


def test_the_commands(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = noise(tmp_path / "plain" / "model.bin", 12345, 1)
    assert main(["delta", "make", "--base", str(base), "--out", str(tmp_path / "enc"), str(plain)]) == 0
    made = capsys.readouterr().out.strip()
    assert main(["delta", "apply", "--base", str(base), "--out", str(tmp_path / "out"), made]) == 0
    assert (tmp_path / "out" / "model.bin").read_bytes() == plain.read_bytes()
    (tmp_path / "sums").write_text(f"{hashlib.sha256(plain.read_bytes()).hexdigest()}  out/model.bin\n")
    capsys.readouterr()
    assert main(["delta", "verify", str(tmp_path / "sums"), "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "out/model.bin: OK\n"
    (tmp_path / "out" / "model.bin").write_bytes(b"")
    assert main(["delta", "verify", str(tmp_path / "sums"), "--root", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "out/model.bin: FAILED\n" and captured.err.startswith("townhall: 1 of 1 files are not as")


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves `content` at any path, whole or from a byte on; a quarter of it only where the path says so."""

    content = np.random.default_rng(3).bytes(300_000)
    asked: list[str | None] = []

    def do_GET(self) -> None:
        wanted, data = self.headers.get("Range"), self.content
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and "norange" not in self.path else 0
        if "missing" in self.path:
            return self.send_error(404)
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : start + (len(data) // 4 if "cut" in self.path else len(data))])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Ranges.asked = []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()


def test_a_download_goes_on_where_it_stopped(server: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="ended after 75,000 of 300,000|cannot be fetched"):
        fetch(f"{server}/cut/a.enc", tmp_path / "a.enc")
    assert (tmp_path / "a.enc.part").stat().st_size == 75_000 and not (tmp_path / "a.enc").exists()
    fetch(f"{server}/a.enc", tmp_path / "a.enc")
    assert (tmp_path / "a.enc").read_bytes() == Ranges.content and Ranges.asked == [None, "bytes=75000-"]
    fetch(f"{server}/a.enc", tmp_path / "a.enc")
    assert len(Ranges.asked) == 2  # what is there is left alone


def test_a_server_without_ranges_and_a_finished_part(server: str, tmp_path: Path) -> None:
    (tmp_path / "b.part").write_bytes(b"old")
    assert fetch(f"{server}/norange/b", tmp_path / "b").read_bytes() == Ranges.content
    (tmp_path / "c.part").write_bytes(Ranges.content)
    assert fetch(f"{server}/c", tmp_path / "c").read_bytes() == Ranges.content
    with pytest.raises(DownloadError, match="answers 404"):
        fetch(f"{server}/missing/d", tmp_path / "d")


@pytest.mark.parametrize(
    "line", ["file:///etc/passwd", "http://host/", "http://host/..", "http://host/a%2Fb", "http://host/%2e%2e", "x", "http://[/a"]
)
def test_a_list_cannot_write_elsewhere(line: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(line)
    with pytest.raises(DownloadError, match="names no file|no http address"):
        read_urls(tmp_path / "list")


def test_the_fetch_command(server: str, tmp_path: Path) -> None:
    (tmp_path / "filelist.txt").write_text(f"{server}/x/a.enc\n{server}/b.enc\n")
    assert main(["delta", "fetch", "--list", str(tmp_path / "filelist.txt"), "--out", str(tmp_path / "got")]) == 0
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == ["a.enc", "b.enc"]


def test_a_result_replaces_neither_its_base_nor_what_is_no_file(base: Path, one: tuple[Path, Path], tmp_path: Path) -> None:
    out, content = tmp_path / "out", base.read_bytes()
    out.mkdir()
    (out / "model.bin").symlink_to(base)
    with pytest.raises(DeltaError, match="out/model.bin is the base itself"):
        delta_file.apply(base, [one[1]], out)
    (out / "model.bin").unlink()
    (out / "model.bin.part").symlink_to(base)
    with pytest.raises(DeltaError, match=r"model.bin.part is there and is no plain file"):
        delta_file.apply(base, [one[1]], out)
    (out / "model.bin.part").unlink()
    (out / "model.bin").mkdir()
    with pytest.raises(DeltaError, match=r"out/model.bin is there and is no plain file"):
        delta_file.apply(base, [one[1]], out)
    assert base.read_bytes() == content and left(out) == ["model.bin"]
    (out / "model.bin.enc.part").mkdir()
    with pytest.raises(DeltaError, match=r"model.bin.enc.part is there and is no plain file"):
        delta_file.make(base, [one[0]], out)


@pytest.mark.parametrize(
    "command", [["apply", "--base", "{base}", "{made}"], ["make", "--base", "{base}", "{plain}"], ["fetch", "--list", "{list}"]]
)
def test_an_out_that_is_no_folder_is_named(
    command: list[str], base: Path, one: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list").write_text("http://127.0.0.1:9/a\n")
    words = [word.format(base=base, plain=one[0], made=one[1], list=tmp_path / "list") for word in command]
    assert main(["delta", *words, "--out", str(base)]) == 2
    assert f"{base} cannot be a folder for the results (" in capsys.readouterr().err


def test_a_delta_that_cannot_be_made_leaves_nothing(base: Path, one: tuple[Path, Path], tmp_path: Path) -> None:
    def full(n: int) -> None:
        raise OSError(28, "No space left on device", "x")

    with pytest.raises(DeltaError, match="No space left"):
        delta_file.make(base, [one[0]], tmp_path / "new", full)
    assert left(tmp_path / "new") == []


def test_a_folder_is_no_finished_download_and_an_empty_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.enc").mkdir()
    with pytest.raises(DownloadError, match="a.enc is there and is no file"):
        fetch("http://127.0.0.1:9/a.enc", tmp_path / "a.enc")
    (tmp_path / "list").write_text("# nothing yet\n")
    with pytest.raises(DownloadError, match="list lists no addresses"):
        read_urls(tmp_path / "list")
