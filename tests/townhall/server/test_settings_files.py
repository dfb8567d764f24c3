"""What settings files say reaches the server; flags win over them."""

import httpx
import pytest

from townhall.cli.main import main
from townhall.cli.settings_files import user_folder

pytestmark = pytest.mark.slow

ADA = "name: Ada\ndescription: You count.\n"
FILE = """\
model: fake:script=script.yaml
personality: ./ada.yaml
max_context: 900
context: stop
count: 3
seed: 7
"""


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "script.yaml").write_text("replies: [one two three four five six]\n")
    (tmp_path / "ada.yaml").write_text(ADA)
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    return path


def info(server, model="ada"):
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    return httpx.post(f"{server.url}/chat/completions", json=body, timeout=60).json()


def test_a_file_says_what_is_served_and_how(child, settings):
    server = child("-c", str(settings))
    assert [model["id"] for model in httpx.get(f"{server.url}/models").json()["data"]][-2:] == ["ada", "fake:script"]
    reply = info(server)
    assert reply["choices"][0]["message"]["content"] == "one two three"
    receipt = reply["townhall"]
    assert (receipt["persona"], receipt["window"], receipt["strategy"], receipt["seeds"]) == ("Ada", 900, "stop", [7])


def test_flags_win_over_files_and_files_over_the_users_own(child, settings):
    own = user_folder() / "settings.yaml"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("max_context: 800\ncontext: shift\ntemperature: 0\n")
    server = child("-c", str(settings), "--max-tokens", "2", "--context", "slide", "--seed", "8")
    reply = info(server, "stacy")
    receipt = reply["townhall"]
    assert reply["usage"]["completion_tokens"] == 2
    assert (receipt["window"], receipt["strategy"], receipt["seeds"]) == (900, "slide", [8])


@pytest.mark.parametrize(
    "text, complaint",
    [("temperature: -1\n", "line 1: temperature must be a number from 0"), ("personality: nobody\n", "no persona is called 'nobody'")],
)
def test_a_wrong_file_is_refused_before_anything_is_opened(tmp_path, capsys, text, complaint):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    assert main(["serve", "--model", "fake:echo", "--port", "0", "-c", str(path)]) == 2
    assert complaint in capsys.readouterr().err


def test_a_flag_that_is_out_of_range_is_refused_before_anything_is_opened(capsys):
    assert main(["serve", "--model", "fake:echo", "--port", "0", "--top-p", "2"]) == 2
    assert capsys.readouterr().err == "townhall: --top-p 2.0 is out of range; pass a number above 0 and up to 1\n"
