"""Several tabs, reloads, other programs, stops and crashes: nothing is lost, nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from tests.townhall.fake import FakeLlama
from townhall.logbook.chat_record import ChatFile
from townhall.logbook.log_reader import read_log
from townhall.logbook.log_writer import LogWriter

pytestmark = pytest.mark.slow

LONG = "word " * 20_000


def long_chat(chats):
    """Whose replies do not end by themselves in this test."""
    return chats(llama=FakeLlama([LONG], max_context=50_000), max_tokens=40_000)


def begun(name, data):
    return name == "delta"


def ended(name, data):
    return name == "end"


def test_two_tabs_see_the_same_and_a_lost_connection_goes_on_where_it_broke(chats):
    chat = chats("One two three four.")
    start = chat.seen
    chat.say("Hi")
    whole = chat.watch(ended, after=start)
    assert chat.watch(ended, after=start) == whole
    for at in range(len(whole)):
        epoch, first = start.split("-")
        again = chat.watch(ended, headers={"Last-Event-ID": f"{epoch}-{int(first) + at}"})
        assert again == whole[at:]


def test_an_event_that_is_not_known_any_more_asks_for_a_reload(chats):
    chat = chats()
    chat.say("Hi")
    for after in ("ffffff-1", "nonsense", f"{chat.seen.split('-')[0]}-999", "x" * 5000):
        assert chat.watch(lambda name, data: True, after=after) == [("reload", {})]
        assert chat.seen == chat.call("GET")["event"]


def test_a_tab_that_joins_in_the_middle_has_the_text_so_far(chats):
    chat = long_chat(chats)
    chat.call("POST", "/messages", 202, text="Hi")
    chat.watch(begun)
    opened = chat.call("GET")
    generation = opened["generation"]
    assert generation["text"].startswith("word") and generation["state"] == "writing" and opened["chat"]["busy"]
    more = chat.watch(begun, after=opened["event"])[-1][1]["text"]
    change = chat.call("POST", "/stop")
    end = chat.watch(ended)[-1][1]
    assert end["text"].startswith(generation["text"] + more) and end["finish_reason"] == "interrupted" and change["total"] == 2
    assert chat.texts[1] == end["text"] == chat.log().turns[1].text


def test_while_a_reply_is_written_nothing_else_is_but_settings(chats):
    chat = long_chat(chats)
    chat.call("POST", "/messages", 202, text="Hi")
    chat.watch(begun)
    busy = [("POST", "/messages", {"text": "x"}), ("POST", "/reply", {}), ("POST", "/choose", {"message": 1}), ("DELETE", "", {})]
    for method, path, body in [*busy, ("PATCH", "/messages/1", {"text": "x"}), ("POST", "/impersonate", {}), ("DELETE", "/messages/1", {})]:
        assert chat.call(method, path, 409, **body)["error"]["code"] == "busy"
    assert chat.call("PATCH", title="Named", tags=["a"])["chat"]["title"] == "Named"
    chat.call("POST", "/stop")
    assert chat.log().title == "Named" and len(chat.texts) == 2 and not chat.log().damages
    assert chat.call("POST", "/stop")["messages"] == []


def test_a_stop_before_the_first_word_leaves_the_question_and_no_reply(chats, serve):
    """One slot, which another chat's reply has: the second waits and never begins."""
    chat = chats(llama=FakeLlama([LONG], max_context=50_000), max_tokens=40_000, slots=1)
    other = chat.http.post("/townhall/chats", json={"model": "gary", "greeting": None}).json()["chat"]["id"]
    chat.call("POST", "/messages", 202, text="Hi")
    chat.watch(begun)
    chat.http.post(f"/townhall/chats/{other}/messages", json={"text": "And me?"}).raise_for_status()
    assert chat.http.post(f"/townhall/chats/{other}/stop").json()["total"] == 1
    opened = chat.http.get(f"/townhall/chats/{other}").json()
    assert [message["text"] for message in opened["messages"]] == ["And me?"] and opened["generation"] is None
    chat.call("POST", "/stop")
    answered = chat.http.post(f"/townhall/chats/{other}/reply", json={"max_tokens": 2})
    assert answered.status_code == 202 and answered.json()["generation"]["parent"] == 1


def test_a_tab_that_did_not_see_the_last_message_does_not_answer_it(chats):
    chat = chats()
    chat.say("Hi", after=0)
    assert chat.call("POST", "/messages", 409, text="Ho", after=0)["error"]["code"] == "conflict" and len(chat.texts) == 2
    chat.say("Ho", after=2)
    assert len(chat.texts) == 4


def test_a_message_that_is_sent_again_with_its_key_is_said_once(chats):
    chat = chats()
    first = chat.call("POST", "/messages", 202, text="Hi", key="k1")
    chat.watch(ended)
    assert chat.call("POST", "/messages", 202, text="Hi", key="k1") == first and chat.texts == ["Hi", "One."]


def test_what_another_program_wrote_is_seen_and_one_that_writes_is_not_disturbed(chats):
    chat = chats()
    chat.say("Hi")
    with ChatFile(chat.path, {}).open() as record:
        record.say("user", "From elsewhere", {"at": None})
        record.say("assistant", "Indeed.", {"finish_reason": "stop"})
        assert chat.call("POST", "/messages", 409, text="x")["error"]["code"] == "locked"
    assert chat.texts == ["Hi", "One.", "From elsewhere", "Indeed."]
    (change,) = [data for name, data in chat.watch(lambda name, data: name == "chat") if name == "change"]
    assert (change["from"], change["total"]) == (1, 4)
    chat.path.write_text(chat.path.read_text().replace("Indeed.", "Edited by hand."))
    chat.say("Ho")
    assert "Edited by hand." in chat.prompt() and len(chat.texts) == 6


def test_a_failed_reply_keeps_what_was_said_and_says_why(chats):
    chat = chats(["One", " two", RuntimeError("the device is gone")], "Three.")
    end = chat.say("Hi")
    assert end["error"]["type"] == "server_error" and end["message"]["text"] == "One two" and end["finish_reason"] == "interrupted"
    assert chat.reply("/reply")["message"]["swipe_ids"] == [2, 3]


def test_drafts_are_kept_and_shown_to_other_tabs(chats):
    chat = chats()
    start = chat.seen
    chat.call("PUT", "/draft", text="Half a sent", tab="a")
    assert chat.call("GET", "/draft") == {"text": "Half a sent"} and chat.call("GET")["draft"] == "Half a sent"
    assert chat.watch(lambda name, data: True, after=start) == [("draft", {"text": "Half a sent", "tab": "a"})] and chat.path.exists()
    chat.call("PUT", "/draft", text="")
    assert chat.call("GET", "/draft") == {"text": ""} and not list(chat.folder.glob(".*"))


def test_a_deleted_chat_is_gone_for_everyone(chats):
    chat = chats()
    chat.say("Hi")
    chat.call("PUT", "/draft", text="x")
    assert chat.call("DELETE") == {"deleted": chat.path.stem}
    assert chat.call("GET", status=404)["error"]["code"] == "chat_not_found" and not list(chat.folder.glob("*.md")) + list(
        chat.folder.glob(".*")
    )


def test_a_restarted_server_has_all_of_it(chats):
    chat = chats()
    chat.say("Hi"), chat.reply("/reply"), chat.call("PATCH", title="T", tags=["x", "y"], folder="work", note={"text": "n"})
    before = chat.call("GET")
    again = chats()
    opened = again.http.get(chat.url).json()
    different = {key for key in before if before[key] != opened[key]}
    assert different <= {"event", "chat"} and opened["chat"] | {"changed": ""} == before["chat"] | {"changed": ""}


def test_chats_are_listed_searched_and_filed(chats):
    chat = chats("The moon is far.")
    chat.say("How far?")
    chat.call("PATCH", title="Astronomy", folder="work", tags=["space"])
    other = chat.http.post("/townhall/chats", json={"model": "stacy", "tags": ["b"]}).json()["chat"]["id"]
    get = lambda path: chat.http.get(path).json()  # noqa: E731
    listed = get("/townhall/chats")
    assert {entry["id"] for entry in listed["chats"]} == {chat.path.stem, other} and listed["total"] == 2
    assert listed["folders"] == [{"name": "work", "chats": 1}] and listed["tags"] == [
        {"name": "b", "chats": 1},
        {"name": "space", "chats": 1},
    ]
    one = [chat.path.stem]
    for query in ("q=MOON", "q=astronomy far", "folder=work", "tag=space", "model=gary", "q=how+moon"):
        assert [entry["id"] for entry in get(f"/townhall/chats?{query}")["chats"]] == one, query
    assert get("/townhall/chats?folder=")["chats"][0]["id"] == other and get("/townhall/chats?q=sun")["total"] == 0
    paged = get("/townhall/chats?limit=1")
    assert len(paged["chats"]) == 1 and paged["next"] == 1 and get("/townhall/chats?limit=1&offset=1")["next"] is None
    chat.reply("/reply")
    found = get("/townhall/search?q=moon+FAR")
    assert [(hit["message"], hit["on_path"], hit["title"]) for hit in found["hits"]] == [(2, False, "Astronomy"), (3, True, "Astronomy")]
    assert found["total"] == 2 and get("/townhall/search?q=")["hits"] == []


def test_the_list_hears_of_every_chat_that_comes_changes_or_goes(chats):
    chat = chats()
    event = chat.http.get("/townhall/chats").json()["event"]
    chat.say("Hi")
    chat.call("PATCH", title="T")
    chat.call("DELETE")
    heard = []
    with chat.http.stream("GET", "/townhall/events", params={"after": event}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                heard.append(json.loads(line.removeprefix("data: ")))
                if heard[-1]["deleted"]:
                    break
    assert heard[0]["chat"]["first"] == "Hi" and heard[0]["chat"]["busy"] and heard[-2]["chat"]["title"] == "T"
    assert heard[-1] == {"chat": None, "deleted": chat.path.stem}


def test_a_chat_of_two_thousand_messages_is_opened_a_page_at_a_time(chats):
    chat = chats()
    head = {"id": "long", "user": "User", "persona": "Gary", "served_as": "gary"}
    with ChatFile(chat.folder / "long.md", head).open() as record:
        for n in range(1000):
            record.say("user", f"question {n}", {"at": "x"})
            record.say("assistant", f"answer {n}", {"at": "x", "finish_reason": "stop"})
    url = "/townhall/chats/long"
    opened = chat.http.get(url).json()
    assert (opened["from"], opened["total"], len(opened["messages"])) == (1900, 2000, 100)
    assert chat.http.get(f"{url}/messages?from=10&limit=2").json()["messages"][0]["text"] == "question 5"
    assert len(chat.http.get(f"{url}?limit=2000").json()["messages"]) == 2000


@pytest.mark.parametrize("id", ["nothing", "..", "%2e%2e%2fsecret", ".hidden", "a%00b", "x" * 300, "index.sqlite"])
def test_nothing_but_chats_can_be_reached(chats, id):
    chat = chats()
    chat.say("Hi")
    (chat.folder.parent / "secret.md").write_text("---\ntownhall: 1\n---\n")
    (chat.folder / ".hidden.md").write_text("---\ntownhall: 1\n---\n")
    assert chat.http.get(f"/townhall/chats/{id}/tree").status_code == 404
    (chat.folder / "link.md").symlink_to(chat.folder.parent / "secret.md")
    assert chat.http.get("/townhall/chats/link").status_code == 404


def test_chats_are_guarded_as_the_api_is(serve, tmp_path):
    server = serve(chats=tmp_path / "a", keys=("k",))
    assert httpx.get(f"{server.root}/townhall/chats").status_code == 401
    assert httpx.get(f"{server.root}/townhall/chats", headers={"Authorization": "Bearer k"}).json()["chats"] == []
    server = serve(chats=tmp_path / "b", hosts=("127.0.0.1",))
    assert httpx.get(f"{server.root}/townhall/chats", headers={"Origin": "http://evil.example"}).status_code == 403
    assert httpx.get(f"{server.root}/townhall/chats", headers={"Host": "evil.example"}).status_code == 403
    none = httpx.get(f"{serve().root}/townhall/chats")
    assert none.status_code == 404 and none.json()["error"]["code"] == "no_chats"


def test_a_crash_keeps_whole_turns(tmp_path):
    """kill -9 in the middle of a reply: the question is there, the half reply is not, and the chat goes on."""
    script = tmp_path / "script.yaml"
    script.write_text("replies:\n- One.\n- {text: '" + LONG[:5000] + "', pause: 0.02}\n")
    command = [sys.executable, "-m", "townhall", "serve", "--model", f"fake:script={script}", "--chats", "--log-to", str(tmp_path / "logs")]
    command += ["--port", "0", "--persona", "gary", "--max-context", "50000", "--max-tokens", "40000"]

    def started():
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        for line in process.stderr:
            if "serving" in line:
                return process, line.split(" at ")[1].split("/v1")[0]
        raise AssertionError("it did not start")

    process, root = started()
    try:
        http = httpx.Client(base_url=root, timeout=60)
        url = f"/townhall/chats/{http.post('/townhall/chats', json={'greeting': None}).json()['chat']['id']}"
        for text in ("Hi", "Go on"):
            event = http.post(f"{url}/messages", json={"text": text}).json()["event"]
            with http.stream("GET", f"{url}/events", params={"after": event}) as stream:
                wanted = "event: end" if text == "Hi" else "event: delta"
                next(line for line in stream.iter_lines() if line == wanted)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        (path,) = (tmp_path / "logs").glob("*.md")
        assert [turn.text for turn in read_log(path).turns] == ["Hi", "One.", "Go on"] and not read_log(path).damages
        process, root = started()
        http = httpx.Client(base_url=root, timeout=60)
        opened = http.get(url).json()
        assert [message["text"] for message in opened["messages"]] == ["Hi", "One.", "Go on"]
        assert http.post(f"{url}/reply", json={}).status_code == 202
        while http.get(url).json()["generation"]:
            time.sleep(0.01)
        assert [turn.text for turn in read_log(path).turns] == ["Hi", "One.", "Go on", "One."]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_what_is_kept_while_the_disk_is_full_is_written_later(chats, monkeypatch):
    chat = chats()
    chat.say("Hi")
    write, full = LogWriter._write, [True]

    def failing(self):
        if full[0]:
            raise OSError(28, "No space left on device")
        write(self)

    monkeypatch.setattr(LogWriter, "_write", failing)
    chat.say("Ho")
    assert chat.texts == ["Hi", "One.", "Ho", "Two."] and "No space left" in chat.call("GET")["chat"]["fault"]
    full[0] = False
    chat.say("Ha")
    assert [turn.text for turn in chat.log().turns] == ["Hi", "One.", "Ho", "Two.", "Ha", "Three."] and chat.call("GET")["chat"][
        "fault"
    ] is None


def test_a_chat_is_exported_as_it_stands(chats):
    chat = chats()
    chat.say("Hi"), chat.reply("/reply")
    assert chat.http.get(f"{chat.url}/export?form=md").text.endswith("**User:** Hi\n\n**Gary:** Two.\n")
    answer = chat.http.get(f"{chat.url}/export?form=json")
    whole = json.loads(answer.text)
    assert [turn["text"] for turn in whole["turns"]] == ["Hi", "Two."] and "attachment" in answer.headers["Content-Disposition"]
    assert [node["text"] for node in whole["tree"]] == ["Hi", "One.", "Two."] and str(chat.folder) not in answer.text
    assert chat.http.get(f"{chat.url}/export?form=pdf").status_code == 400
