"""Chats of a server whose personas another server's model answers for: what logs, receipts and clients hear of it."""

import pytest

from tests.townhall.fake import FakeLlama
from tests.townhall.via.misbehaving import Misbehaving, fails, says
from townhall.cli.main import main
from townhall.via.endpoint import RemoteEndpoint, TokenPrice

pytestmark = pytest.mark.slow


@pytest.fixture
def chat_via(chats):
    """chat_via(remote, …): a fresh chat of a server that asks `remote`; the local model says "Local words."."""

    def start(remote, **options):
        endpoint = RemoteEndpoint(remote.url, "big-one", "sesame", price=TokenPrice(100.0, 1000.0, "USD"))
        return chats(llama=FakeLlama(["Local words."]), via=endpoint, **options)

    return start


def test_replies_say_who_gave_them_and_what_the_chat_has_cost(chat_via):
    with Misbehaving(says("Remote", " words."), says("Others."), fails(503), fails(503), fails(503), says("Back.")) as remote:
        chat = chat_via(remote)
        place = remote.url.removeprefix("http://").removesuffix("/v1")
        first = chat.say("One")["message"]
        assert (
            first["text"] == "Remote words."
            and first["receipt"]["via"] == {"model": "big-one", "host": place}
            and first["usage"]["completion_tokens"] == 2
        )
        assert first["receipt"]["sent"]["total_cost"] == pytest.approx(0.007)
        swipe = chat.reply("/reply")["message"]
        assert swipe["text"] == "Others." and swipe["receipt"]["sent"]["total_cost"] == pytest.approx(0.013)
        local = chat.say("Two")["message"]
        assert local["text"] == "Local words." and "failed (503)" in local["receipt"]["away"] and "sent" not in local["receipt"]
        assert chat.say("Three")["message"]["receipt"]["sent"]["total_cost"] == pytest.approx(0.019)
        facts = [turn.facts for turn in chat.log().turns if turn.role == "assistant"]  # of the path: the first reply is a swipe now
        assert [one.get("via", {}).get("model") for one in facts] == ["big-one", None, "big-one"]
        assert ["tokens" in one for one in facts] == [False, True, False] and "sampler" not in facts[0]
        assert "sesame" not in chat.path.read_text()


def test_a_refused_key_is_told_and_the_question_stays(chat_via):
    with Misbehaving(fails(401, "bad key sesame"), says("Fine.")) as remote:
        chat = chat_via(remote)
        end = chat.say("One")
        assert end["message"] is None and end["error"]["code"] == "via_refused" and "sesame" not in end["error"]["message"]
        assert chat.texts == ["One"] and chat.reply("/reply")["message"]["text"] == "Fine."


def test_a_broken_answer_is_kept_and_carried_on(chat_via):
    with Misbehaving(says("Half of", " it", finish=None), says("and the rest.")) as remote:
        chat = chat_via(remote)
        end = chat.say("One")
        assert end["finish_reason"] == "interrupted" and "broke off" in end["error"]["message"] and chat.texts[-1] == "Half of it"
        carried = chat.reply("/continue")
        assert carried["message"]["text"] == "Half of it and the rest." and chat.texts == ["One", "Half of it and the rest."]
        assert [message["content"] for message in remote.asked[-1][1]["messages"]][-2] == "Half of it"


def test_what_is_of_tokens_is_the_local_models(chat_via):
    with Misbehaving(says("Remote words.")) as remote:
        chat = chat_via(remote)
        reply = chat.say("One")["message"]["id"]
        assert chat.http.get(f"{chat.url}/messages/{reply}/logprobs").json()["error"]["code"] == "not_local"
        chat.call("POST", f"/messages/{reply}/alternative", 400, position=0, token=1)
        assert chat.reply("/impersonate")["text"] == "Local words." and len(remote.asked) == 1


def test_a_replay_takes_what_was_said_elsewhere_as_it_is(chat_via, capfd, tmp_path):
    with Misbehaving(says("Remote words."), fails(503), fails(503), fails(503)) as remote:
        chat = chat_via(remote)
        chat.say("One")
        chat.say("Two")
        path = chat.path
    script = tmp_path / "local.yaml"
    script.write_text("replies: ['Local words.']\n")
    assert main(["replay", str(path), "--model", f"fake:script={script}"]) == 0
    out, err = capfd.readouterr()
    assert "1 reply" in out and "all the same" in out and "1 reply of another server's model" in err
