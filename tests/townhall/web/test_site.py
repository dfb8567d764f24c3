"""The page as it is delivered: whole, offline, and with no way to anything but itself."""

import json
import re

import httpx
import pytest

pytest.importorskip("gradio", reason="the extra `web` is not installed")

from townhall.web.chat_store import ChatStore
from townhall.web.client import Client, ModelChoice
from townhall.web.site import application

BASE = "http://127.0.0.1"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "logs"
    served_models = [ModelChoice("stacy", "Stacy", "A <b>rapper</b>.", "Yo!"), ModelChoice("gary", "Gary")]
    return application(ChatStore(folder, Client("http://127.0.0.1:9"), served_models), "stacy", ("127.0.0.1", "localhost"))


@pytest.fixture
def get(run, site):
    """get(path, method=…, **request): the answer to one request."""

    def ask(path, method="GET", **named):
        async def story():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url=BASE) as client:
                return await client.request(method, path, **named)

        return run(story())

    return ask


def test_the_page_names_no_other_host(get):
    html = get("/").text
    hosts = set(re.findall(r"https?://([^/\"'\\ ]+)", html)) - {"127.0.0.1"}
    assert "Townhall" in html and not hosts
    assert "iframeResizer" not in html and "manifest.json" not in html and 'property="og:' not in html


def test_nothing_it_refers_to_is_missing(get):
    html = get("/").text
    for path in re.findall(r'(?:src|href)="\.?/?((?:assets|own|static)/[^"]+)"', html):
        assert get(f"/{path}").status_code == 200, path
    theme = get("/theme.css")
    assert theme.status_code == 200 and not re.search(r"https?:(?!//www\.w3\.org/)|@import", theme.text)


def test_the_policy_lets_in_nothing_from_elsewhere_and_no_eval(get):
    answer = get("/")
    rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == "'none'" and rules["connect-src"] == "'self'" and rules["frame-ancestors"] == "'none'"
    assert "unsafe" not in rules["script-src"] and "eval" not in answer.headers["content-security-policy"]
    assert "http" not in answer.headers["content-security-policy"]
    inline = re.findall(r"<script(?![^>]*\bsrc=)", answer.text)
    assert rules["script-src"].count("sha256-") == len(inline) > 0


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/file=/etc/passwd", "/gradio_api/file=pyproject.toml", "/gradio_api/file/etc/passwd", "/file=/etc/passwd"),
        *("/gradio_api/proxy=http://127.0.0.1/", "/gradio_api/info", "/gradio_api/openapi.json", "/docs", "/openapi.json", "/monitoring"),
        *("/manifest.json", "/gradio_api/runs", "/gradio_api/custom_component/x/client/component/index.js", "/pwa_icon", "/login_check"),
        *("/assets/../routes.py", "/assets/%2e%2e/%2e%2e/%2e%2e/routes.py", "/static/..%2f..%2f..%2froutes.py", "/own/..%2fpage.py"),
        *("/own/%2e%2e/page.py", "/portraits/..%2f..%2fpage.py", "/chats/..%2f..%2fetc%2fpasswd.md", "/chats/x.py", "/svelte/x"),
    ],
)
def test_no_path_on_the_disk_can_be_read(get, path):
    answer = get(path)
    assert answer.status_code in (403, 404) or path.startswith("/portraits/"), path
    assert "root:" not in answer.text and "import " not in answer.text and "[project]" not in answer.text


@pytest.mark.parametrize("path", ["/upload", "/stream/x", "/process_recording", "/vibe-edit", "/login"])
def test_nothing_can_be_uploaded(get, path):
    assert get(f"/gradio_api{path}", "POST", files={"files": b"x"}).status_code == 404


def test_the_events_are_for_the_page_alone(get):
    config = json.loads(re.search(r"window\.gradio_config = (\{.*?\});</script>", get("/").text, re.DOTALL)[1])
    assert {one["api_visibility"] for one in config["dependencies"]} == {"private"}
    assert config["analytics_enabled"] is False and not config.get("is_space") and config["title"] == "Townhall"
    assert get("/gradio_api/call/send", "POST", json={"data": []}).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
def test_another_name_for_this_machine_is_refused(get, host):
    assert get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9"])
def test_pages_of_other_origins_may_not_ask(get, origin):
    assert get("/gradio_api/queue/join", "POST", json={}, headers={"origin": origin}).status_code == 403


def test_faces_and_files_of_ours_are_served_with_their_kinds(get):
    assert get("/portraits/stacy.svg").headers["content-type"].startswith("image/svg+xml")
    assert ">Z</text>" in get("/portraits/zoe.svg").text
    assert get("/own/page.js").headers["content-type"].startswith("text/javascript")
    assert get("/own/nothing.js").status_code == 404
    for path in ("/own/page.css", "/own/page.js", "/own/favicon.svg"):
        assert not re.search(r"https?://(?!www\.w3\.org)", get(path).text)


def test_a_chat_that_is_not_there_cannot_be_exported(get):
    assert get("/chats/20260101-000000-abcdef.md").status_code == 404
