"""The page as it is delivered: whole, small, offline, and cached in a way that no update can break."""

import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `web` is not installed")

import httpx

from tests.townhall.fake import FakeBackend, FakeLlama
from tests.townhall.server.running import OPTIONS, Opened, Running
from townhall.conversation import default_sampling
from townhall.web.page_files import ASSETS, PageFiles

OTHER_HOSTS = re.compile(r"(?:src|href|from|import|url)\s*[=(]?\s*[\"'(](?:https?:)?//", re.IGNORECASE)


@pytest.fixture(scope="module")
def files() -> PageFiles:
    return PageFiles()


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """serve(**options): a server over a double."""
    running: list[Running] = []

    def start(**options: Any) -> Running:
        running.append(Running(lambda: Opened(FakeLlama(), default_sampling(), FakeBackend()), replace(OPTIONS, **options)))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def page(serve) -> Running:
    return serve(page=True, hosts=("127.0.0.1", "localhost"))


@pytest.fixture
def get(page: Running):
    """get(path, **headers): the answer to one request."""

    def ask(path: str, **headers: str) -> httpx.Response:
        return httpx.get(page.root + path, headers={key.replace("_", "-"): value for key, value in headers.items()})

    return ask


def test_everything_that_the_page_refers_to_is_there(files: PageFiles) -> None:
    names = re.findall(r'(?:href|src)="page/\w+/([^"]+)"', files.index.decode())
    assert len(names) > 20 and not [name for name in names if name not in files.files]
    for name in files.files:
        if name.startswith("js/"):
            text = files.files[name].decode()
            for target in re.findall(r'import\(\s*["`]([^"`$]+)["`]\s*\)', text):
                assert (ASSETS / Path(name).parent / target).resolve().is_file(), (name, target)


def test_modules_that_run_at_once_are_loaded_at_once(files: PageFiles) -> None:
    preloaded = set(re.findall(r'modulepreload" href="page/\w+/([^"]+)"', files.index.decode()))
    assert preloaded == set(files.reachable("js/main.js")) and "vendor/katex/katex.js" not in preloaded


def test_scripts_are_served_without_comments_and_otherwise_as_they_are(files: PageFiles) -> None:
    for name, data in files.files.items():
        if name.startswith("js/"):
            source, served = (ASSETS / name).read_text().split("\n"), data.decode().split("\n")
            assert len(served) == len(source)
            for line, lean in zip(source, served, strict=True):
                assert lean in (line.strip(" \t"), line.lstrip(" \t")) or (not lean and line.lstrip().startswith(("//", "/**", "*"))), (
                    name,
                    line,
                )


def test_scripts_stay_below_150_kilobytes_compressed(files: PageFiles) -> None:
    sizes = {name: len(gzip.compress(data, 9)) for name, data in files.files.items() if name.endswith(".js") and "katex" not in name}
    assert sum(sizes.values()) < 150_000, sorted(sizes.items(), key=lambda one: -one[1])[:10]


def test_nothing_comes_from_another_host(files: PageFiles) -> None:
    for name, data in {**files.files, "index.html": files.index}.items():
        if name.endswith((".js", ".css", ".html")) and not name.startswith("vendor/"):
            assert not OTHER_HOSTS.search(data.decode()), name
    for name in ("vendor/katex/katex.css", "js/main.js"):
        assert not re.search(r"@import|url\(\s*[\"']?https?:", files.files[name].decode()), name


def test_nothing_is_inline(files: PageFiles) -> None:
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", files.index.decode())


def test_the_policy_lets_in_nothing_from_elsewhere_and_nothing_inline(get) -> None:
    answer = get("/")
    rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == "'none'" and rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'" and "unsafe" not in str(rules) and "http" not in str(rules)
    assert answer.headers["content-type"].startswith("text/html") and answer.headers["x-content-type-options"] == "nosniff"


def test_files_are_compressed_and_kept_for_good_under_their_version(get, files: PageFiles) -> None:
    answer = get(f"/page/{files.version}/js/store.js", accept_encoding="gzip")
    assert answer.content == files.files["js/store.js"] and answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"] and answer.headers["content-type"].startswith("text/javascript")
    plain = get(f"/page/{files.version}/js/store.js", accept_encoding="identity")
    assert plain.content == answer.content and "content-encoding" not in plain.headers
    assert get("/page/older/js/main.js").headers["cache-control"] == "no-cache"  # a tab from before an update
    again = get("/", if_none_match=get("/").headers["etag"])
    assert again.status_code == 304 and not again.content


def test_addresses_are_relative_so_that_a_proxy_may_put_a_prefix_before_them(files: PageFiles) -> None:
    assert not re.search(r'(?:href|src)="/', files.index.decode())
    for name, data in files.files.items():
        if name.startswith("js/"):
            assert not re.search(r'fetch\(\s*["`]/|(?:get|post|put|patch|del|download|upload)\(\s*["`]/', data.decode()), name


@pytest.mark.parametrize(
    "path",
    [
        *("/page/x/../page_files.py", "/page/x/%2e%2e/page_files.py", "/page/x/js/..%2f..%2f..%2fpage_files.py", "/page/x//etc/passwd"),
        *("/page/x/index.html", "/page/x/", "/portraits/..%2f..%2fpage.py", "/page/x/js/nothing.js"),
    ],
)
def test_no_other_file_on_the_disk_can_be_read(get, path: str) -> None:
    answer = get(path)
    assert answer.status_code == 404 or path.startswith("/portraits/"), path
    assert "root:" not in answer.text and "import " not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example"])
def test_another_name_for_this_machine_is_refused(get, host: str) -> None:
    assert get("/", host=host).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9"])
def test_pages_of_other_origins_may_not_ask(get, origin: str) -> None:
    assert get("/townhall/controls", origin=origin).status_code == 403


def test_with_a_key_the_page_itself_is_open_and_nothing_else(serve) -> None:
    server = serve(page=True, keys=("secret",))
    statuses = {path: httpx.get(server.root + path).status_code for path in ("/", "/page/x/js/main.js", "/v1/models", "/townhall/controls")}
    assert statuses == {"/": 200, "/page/x/js/main.js": 200, "/v1/models": 401, "/townhall/controls": 401}


def test_without_the_page_there_is_only_the_api(serve) -> None:
    server = serve()
    assert httpx.get(f"{server.root}/").status_code == 404


def test_controls_are_declared_with_what_holds_by_default(serve) -> None:
    server = serve()
    said = httpx.get(f"{server.root}/townhall/controls").json()
    names = [control["name"] for control in said["controls"]]
    assert names[0] == "temperature" and "dry_sequence_breakers" in names and said["context"] in [one["name"] for one in said["strategies"]]
    assert all(
        control["min"] <= control["default"] <= max(control["max"], control["default"])
        for control in said["controls"]
        if control["kind"] != "texts"
    )
