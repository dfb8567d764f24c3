"""What operations do to a chat, to what the model is shown, and to the log; over HTTP, against a real server."""

import pytest

from tests.townhall.cli.test_commands import turn
from tests.townhall.fake import FakeLlama
from townhall.logbook.log_reader import read_log

pytestmark = pytest.mark.slow


def kept(log):
    return [turn.text for turn in log.turns]


def test_a_message_is_answered_and_kept(chats):
    chat = chats("One two three.")
    assert not chat.path.exists() and chat.begun["saved"] is False and chat.http.get("/townhall/chats").json()["chats"] == []
    events = []
    chat.call("POST", "/messages", 202, text="Hi")
    events = chat.watch(lambda name, data: name == "end")
    assert [name for name, _ in events if name != "delta"] == ["change", "begin", "prompt", "end"]
    assert "".join(data["text"] for name, data in events if name == "delta") == "One two three."
    change, end = events[0][1], events[-1][1]
    assert (change["from"], change["total"], change["generation"]["message"], change["generation"]["index"]) == (0, 1, 2, 1)
    assert end["message"]["text"] == end["text"] == "One two three." and end["error"] is None and end["change"]["total"] == 2
    opened = chat.call("GET")
    assert [message["text"] for message in opened["messages"]] == ["Hi", "One two three."] and opened["generation"] is None
    answer = opened["messages"][1]
    assert answer == end["message"] == chat.call("GET", "/messages")["messages"][1]
    assert answer["usage"] == {"prompt_tokens": len(chat.llama.prompts[0]), "completion_tokens": 4} and answer["finish_reason"] == "stop"
    assert kept(chat.log()) == ["Hi", "One two three."] and chat.log().turns[1].facts["sampler"]["seed"] == answer["seed"]
    (head,) = chat.http.get("/townhall/chats").json()["chats"]
    assert (head["first"], head["messages"], head["model"], head["persona"], head["busy"]) == ("Hi", 2, "gary", "Gary", False)


def test_swipes_are_kept_and_chosen_and_the_prompt_is_not_read_again(chats):
    chat = chats()
    chat.say("Hi")
    computed = chat.llama.computed
    assert [chat.reply("/reply")["message"]["swipe_ids"] for _ in range(2)] == [[2, 3], [2, 3, 4]]
    assert chat.llama.prompts[0] == chat.llama.prompts[1] == chat.llama.prompts[2] and chat.llama.computed == computed
    assert chat.texts == ["Hi", "Three."]
    assert chat.call("POST", "/choose", message=2)["messages"][0]["swipe"] == 0 and chat.texts == ["Hi", "One."]
    chat.say("Ho")
    assert chat.prompt() == turn("Hi", "One.") + turn("Ho") and chat.texts == ["Hi", "One.", "Ho", "Four."]
    assert chat.call("POST", "/choose", message=3)["total"] == 2
    change = chat.call("POST", "/choose", message=2)
    assert change["total"] == 4 and chat.texts == kept(chat.log()) == ["Hi", "One.", "Ho", "Four."]
    again = chat.reply("/reply", message=1)["message"]
    assert again["swipe_ids"] == [2, 3, 4, 7] and chat.texts == ["Hi", "Five."]


def test_a_retry_may_be_drawn_otherwise(chats):
    chat = chats()
    chat.say("Hi")
    message = chat.reply("/reply", sampler={"temperature": 1.5, "min_p": 0.1}, seed=9, max_tokens=7)["message"]
    assert (message["sampler"]["temperature"], message["sampler"]["min_p"], message["seed"]) == (1.5, 0.1, 9)
    assert chat.log().turns[-1].facts["max_tokens"] == 7
    chat.call("PATCH", settings={"sampler": {"temperature": 0.9, "top_k": 3}, "seed": 4})
    chat.call("PATCH", settings={"sampler": {"top_k": None}})
    assert chat.call("GET")["settings"] == {"sampler": {"temperature": 0.9}, "seed": 4}
    message = chat.reply("/reply")["message"]
    assert (message["sampler"]["temperature"], message["sampler"]["top_k"], message["seed"]) == (0.9, 40, 4)


def test_a_reply_is_carried_on_in_its_place(chats):
    chat = chats("One two", " three four", ".", "Well.")
    chat.say("Hi")
    end = chat.reply("/continue")
    assert end["kind"] == "continue" and end["message"]["id"] == 2 and end["text"] == "One two three four"
    assert chat.prompt() == turn("Hi") + "One two"
    deltas = []
    chat.call("POST", "/continue", 202, prefill=" and")
    deltas = [data["text"] for name, data in chat.watch(lambda name, data: name == "end") if name == "delta"]
    assert chat.texts == kept(chat.log()) == ["Hi", "One two three four and."] and "".join(deltas) == " and."
    assert chat.prompt() == turn("Hi") + "One two three four and"
    chat.say("Ho")
    assert chat.prompt() == turn("Hi", "One two three four and.") + turn("Ho")
    chat.call("POST", "/messages", 200, text="Hm", reply=False)
    assert chat.call("POST", "/continue", 400)["error"]["code"] == "nothing_to_continue"


def test_a_reply_begins_with_a_prefill(chats):
    chat = chats(" is far.", "x")
    assert chat.say("Say", prefill="The moon")["text"] == "The moon is far." and chat.prompt() == turn("Say") + "The moon"
    assert chat.call("POST", "/reply", 400, prefill="Well [EOS]")["error"]["message"].startswith("a reply cannot begin")
    assert chat.texts == ["Say", "The moon is far."]


def test_messages_of_either_side_are_edited_and_what_follows_stays(chats):
    chat = chats()
    chat.say("Hi"), chat.say("Ho")
    change = chat.call("PATCH", "/messages/1", text="Hello")
    assert change["from"] == 0 and change["messages"][0]["edited"] and [message["id"] for message in change["messages"]] == [1, 2, 3, 4]
    chat.call("PATCH", "/messages/2", text="Uno.")
    chat.say("Ha")
    assert chat.prompt() == turn("Hello", "Uno.") + turn("Ho", "Two.") + turn("Ha")
    assert chat.texts == kept(chat.log()) == ["Hello", "Uno.", "Ho", "Two.", "Ha", "Three."]
    change = chat.call("PATCH", "/messages/5", text="He", copy=True)
    assert change["messages"][-1]["swipe_ids"] == [5, 7] and chat.texts == ["Hello", "Uno.", "Ho", "Two.", "He"]
    chat.call("PATCH", "/messages/5", 202, text="Hu", copy=True, reply=True)
    chat.watch(lambda name, data: name == "end")
    assert chat.texts == kept(chat.log()) == ["Hello", "Uno.", "Ho", "Two.", "Hu", "Four."]
    assert chat.call("PATCH", "/messages/5", 400, text=" ")["error"]["param"] == "text"


def test_messages_are_deleted_alone_or_with_what_follows(chats):
    chat = chats()
    for text in ("a", "b", "c"):
        chat.say(text)
    chat.call("DELETE", "/messages/2")
    assert chat.texts == ["a", "b", "Two.", "c", "Three."]
    chat.say("d")
    assert chat.prompt() == turn("a\n\nb", "Two.") + turn("c", "Three.") + turn("d")
    chat.call("DELETE", "/messages/5?below=true")
    assert (
        chat.texts == kept(chat.log()) == ["a", "b", "Two."]
        and chat.call("GET", "/messages/5", 404)["error"]["code"] == "message_not_found"
    )


def test_replies_are_rated_each_version_by_itself_and_every_watcher_sees_it(chats):
    chat = chats()
    chat.say("Hi"), chat.reply("/reply"), chat.say("Ho")
    change = chat.call("PUT", "/messages/3/rating", rating="good")
    assert (change["from"], change["total"], [message["rating"] for message in change["messages"]]) == (1, 4, ["good", None, None])
    assert chat.watch(lambda name, data: name == "change")[-1][1] == change
    change = chat.call("PUT", "/messages/2/rating", rating="bad")  # a version that is not on the path
    assert change["messages"] == [] and chat.call("GET", "/messages/2")["rating"] == "bad"
    assert chat.call("POST", "/choose", message=2)["messages"][0]["rating"] == "bad"
    assert {node.id: node.rating for node in chat.log().tree} == {1: None, 2: "bad", 3: "good", 4: None, 5: None}
    copied = chat.call("POST", "/branch", 201, message=2, chat=True)
    assert [message["rating"] for message in copied["messages"]] == [None, "bad"]
    assert chat.call("PUT", "/messages/2/rating", rating=None)["messages"][0]["rating"] is None
    copied = chat.call("POST", "/branch", 201, message=2, chat=True)
    assert [message["rating"] for message in copied["messages"]] == [None, None]
    chat.call("PUT", "/messages/2/rating", rating="good")
    assert chat.reply("/continue")["message"]["rating"] is None  # it was of the words before


def test_a_branch_stays_beside_the_other_and_may_be_a_chat_of_its_own(chats):
    chat = chats()
    chat.say("a"), chat.say("b")
    assert chat.call("POST", "/branch", message=2)["total"] == 2
    chat.say("c")
    tree = chat.call("GET", "/tree")
    assert [(node["id"], node["parent"], node["on_path"], node["chosen"]) for node in tree["nodes"]] == [
        (1, 0, True, True),
        (2, 1, True, True),
        (3, 2, False, False),
        (4, 3, False, True),
        (5, 2, True, True),
        (6, 5, True, True),
    ]
    assert tree["tip"] == 6 and chat.call("GET")["messages"][1]["branches"] == 2
    copied = chat.call("POST", "/branch", 201, message=4, chat=True, title="Other")
    assert [message["text"] for message in copied["messages"]] == ["a", "One.", "b", "Two."] and copied["chat"]["title"] == "Other"
    log = read_log(chat.folder / f"{copied['chat']['id']}.md")
    assert kept(log) == ["a", "One.", "b", "Two."] and log.turns[1].facts["said_in"] == chat.begun["chat"]["id"]
    chat.http.post(f"/townhall/chats/{copied['chat']['id']}/messages", json={"text": "d"})
    assert chat.texts == ["a", "One.", "c", "Three."]
    while chat.http.get(f"/townhall/chats/{copied['chat']['id']}").json()["generation"]:
        pass
    assert chat.prompt() == turn("a", "One.") + turn("b", "Two.") + turn("d")


def test_the_model_writes_the_users_line_for_the_composer(chats):
    chat = chats("One.", " And you?")
    chat.say("Hi")
    end = chat.reply("/impersonate", prefill="So")
    assert (end["kind"], end["message"], end["text"]) == ("impersonate", None, "So And you?") and chat.texts == ["Hi", "One."]
    assert chat.prompt() == turn("Hi", "One.") + "<|im_start|>user\nSo"


def test_greetings_are_swipes_of_the_first_message(chats, tmp_path):
    import json

    card = {
        "spec": "chara_card_v2",
        "spec_version": "2.0",
        "data": {"name": "Ada", "description": "A poet.", "first_mes": "Hail!", "alternate_greetings": ["Ho!", "Hm."]},
    }
    (tmp_path / "ada.json").write_text(json.dumps(card))
    chat = chats(model="ada.json", personas=(str(tmp_path / "ada.json"),), fields={"greeting": 1})
    assert chat.begun["greetings"] == ["Hail!", "Ho!", "Hm."] and [m["text"] for m in chat.begun["messages"]] == ["Ho!"]
    assert chat.begun["messages"][0]["swipe_ids"] == [1, 2, 3] and chat.begun["messages"][0]["greeting"]
    assert chat.call("POST", "/choose", message=3)["messages"][0]["text"] == "Hm."
    chat.say("Hi")
    assert chat.prompt() == turn("", "Hm.") + turn("Hi") and chat.texts == kept(chat.log()) == ["Hm.", "Hi", "One."]


def test_a_note_stands_at_its_depth_and_a_system_prompt_replaces_the_persona(chats):
    chat = chats()
    chat.say("a"), chat.say("b")
    chat.call("PATCH", note={"text": "be brief", "depth": 1, "role": "system"})
    chat.say("c")
    assert chat.prompt() == turn("a", "One.") + turn("b", "Two.") + turn("[be brief]\n\nc")
    (part,) = [part for part in chat.call("GET", "/messages/6")["receipt"]["parts"] if part["name"] == "author's note"]
    assert part["place"] == "depth 1" and chat.log().turns[-1].facts["inserted"][0]["text"] == "[be brief]"
    assert chat.call("PATCH", note=None, system="You are Zed.")["note"] is None
    chat.say("d")
    shown = chat.llama.tokenizer.show(chat.llama.prompts[-1])
    assert "You are Zed." in shown and "be brief" not in shown and "Gary is" not in shown
    assert sum(part["tokens"] for part in chat.call("GET", "/messages/8")["receipt"]["parts"]) == len(chat.llama.prompts[-1])


def test_tokens_are_counted_as_they_would_be_sent(chats):
    chat = chats()
    chat.say("Hi")
    counts = chat.call("POST", "/tokens", text="How are you")
    chat.say("How are you")
    assert counts["tokens"] == 3 and counts["prompt_tokens"] == len(chat.llama.prompts[-1]) and counts["window"] == 1024


def test_a_reply_goes_on_from_another_token(chats):
    chat = chats("One two three.", " four.")
    chat.say("Hi")
    ids, other = chat.log().turns[1].facts["tokens"], chat.llama.tokenizer.id(" twelve")
    end = chat.reply("/messages/2/alternative", position=1, token=other)
    assert end["text"] == "One twelve four." and end["message"]["swipe_ids"] == [2, 3]
    assert chat.llama.prompts[-1] == [*chat.llama.prompts[0], ids[0], other] and chat.log().turns[1].facts["given_tokens"] == 2
    assert chat.call("POST", "/messages/2/alternative", 400, position=4, token=other)["error"]["param"] == "position"
    assert chat.call("POST", "/messages/2/alternative", 400, position=1, token=3)["error"]["param"] == "token"


def test_what_a_full_window_lets_go_is_counted(chats):
    chat = chats(llama=FakeLlama(["word " * 40], max_context=512), context="slide", max_tokens=64)
    for text in ("a", "b", "c", "d", "e", "f"):
        chat.say(text + " word" * 20)
    receipt = chat.call("GET")["messages"][-1]["receipt"]
    assert receipt["dropped"] > 0 and receipt["dropped_tokens"] > 0
    chat.call("PATCH", settings={"context": "stop"})
    error = chat.call("POST", "/messages", 400, text="word " * 100)["error"]
    assert error["code"] == "context_length_exceeded" and len(chat.texts) == 12


def test_settings_that_a_person_wrote_wrongly_into_the_log_are_named(chats):
    chat = chats()
    chat.say("Hi")
    with chat.path.open("a") as file:
        file.write('<!-- set {"settings": {"adapters": [{"x": 1}]}, "note": {"text": 3}, "tags": 7, "folder": [], "system": {}} -->\n')
    assert chat.call("GET")["chat"]["tags"] == []
    assert "cannot be used" in chat.call("POST", "/reply", 400)["error"]["message"]
    chat.call("PATCH", settings={"adapters": None}, note=None, system="")
    assert chat.reply("/reply")["text"] == "Two."


def test_what_cannot_be_done_changes_nothing(chats):
    chat = chats()
    assert chat.call("POST", "/reply", 400)["error"]["code"] == "nothing_to_answer"
    assert chat.call("POST", "/continue", 400)["error"]["code"] == "nothing_to_continue"
    chat.say("Hi")
    before = chat.path.read_bytes()
    for method, path, status, body in [
        ("POST", "/choose", 404, {"message": 9}),
        ("POST", "/branch", 404, {"message": 9}),
        ("PATCH", "/messages/9", 404, {"text": "x"}),
        ("DELETE", "/messages/9", 404, {}),
        ("PUT", "/messages/9/rating", 404, {"rating": "good"}),
        ("PUT", "/messages/1/rating", 400, {"rating": "good"}),
        ("PUT", "/messages/2/rating", 400, {"rating": "fine"}),
        ("PUT", "/messages/2/rating", 400, {}),
        ("DELETE", "/messages/x", 404, {}),
        ("GET", "/messages/1/logprobs", 400, {}),
        ("POST", "/messages", 400, {"text": " "}),
        ("POST", "/messages", 400, {"text": "x", "role": "assistant"}),
        ("POST", "/messages", 400, {"text": "x", "color": "red"}),
        ("POST", "/messages", 400, {"text": "x", "sampler": {"temperature": -1}}),
        ("POST", "/messages", 400, {"text": "x", "sampler": {"warmth": 1}}),
        ("PATCH", "", 400, {"settings": {"colour": "red"}}),
        ("PATCH", "", 400, {"settings": {"adapters": [{"name": "none such"}]}}),
        ("PATCH", "", 404, {"model": "none such"}),
        ("PATCH", "/messages/2", 400, {"text": "x", "copy": True, "reply": True}),
    ]:
        chat.call(method, path, status, **body)
    assert chat.path.read_bytes() == before
