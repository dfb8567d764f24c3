"""Files by HTTP, taken up where an earlier attempt ended."""

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from app.models.llama.sanitize import clipped, quoted
from ext.tinygrad.errors import TownhallError

BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte
MAX_LIST = 1 << 22


class DownloadError(TownhallError):
    """A list or an address that gives no file."""


def read_urls(path: Path) -> list[tuple[str, str]]:
    """(address, file name) of each line of a filelist.txt; the name is the last part of the address's path."""
    if not path.is_file():
        raise DownloadError(f"{path} is no list of addresses; pass the path of a filelist.txt")
    with path.open("rb") as file:
        text = file.read(MAX_LIST).decode("utf-8", "replace")
    found: list[tuple[str, str]] = []
    for line in (line.strip() for line in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        try:
            parts = urllib.parse.urlsplit(line)
        except ValueError:
            parts = urllib.parse.urlsplit("")
        name = urllib.parse.unquote(parts.path.rpartition("/")[2])
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise DownloadError(f"{path} lists {quoted(line)}, which is no http address; remove it")
        if name in ("", ".", "..") or "/" in name or "\\" in name or not name.isprintable():
            raise DownloadError(f"{path} lists {quoted(line)}, which names no file; remove it")
        if name in (known for _, known in found):
            raise DownloadError(f"{path} lists {quoted(name)} twice; remove one")
        found.append((line, name))
    if not found:
        raise DownloadError(f"{path} lists no addresses; pass a list of them, one a line")
    return found


def fetch(url: str, target: Path, on_bytes: Callable[[int, int | None], object] = lambda n, total: None) -> Path:
    """Download to `target` through a .part beside it; `on_bytes(new bytes, bytes in all if known)`. A file that is there is left alone."""
    if target.is_file():
        return target
    if target.exists():
        raise DownloadError(f"{target} is there and is no file; remove it, or pass another folder as --out")
    part = target.with_name(f"{target.name}.part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if have and answer.status != 206:
                have = 0  # the server begins at the beginning
            if have and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
                raise DownloadError(f"{url} answers with another range than was asked for; remove {part} and fetch it again")
            length = answer.headers.get("Content-Length", "")
            total = have + int(length) if length.isdecimal() else None
            on_bytes(have, total)
            with part.open("ab" if have else "wb") as file:
                while block := answer.read(BLOCK):
                    file.write(block)
                    on_bytes(len(block), total)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send
            size = error.headers.get("Content-Range", "").rpartition("/")[2]
            if size == str(have):
                return part.replace(target)
            part.unlink()
            return fetch(url, target, on_bytes)
        raise DownloadError(f"{url} answers {error.code} {clipped(error.reason)}; check the address") from None
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadError(f"{url} cannot be fetched ({clipped(error)}); run the command again, it goes on where it stopped") from None
    if total is not None and (reached := part.stat().st_size) != total:
        raise DownloadError(f"{url} ended after {reached:,} of {total:,} bytes; run the command again, it goes on where it stopped")
    return part.replace(target)
