"""What commands do to a talk, to what the model is shown, and to the log."""

import io
import json
import os
import signal
import sys

import pytest

from tests.townhall.fake import FakeBackend, FakeLlama
from townhall.cli import commands
from townhall.cli.chat_options import ChatOptions
from townhall.cli.chat_state import ChatState
from townhall.cli.main import main
from townhall.cli.model_loading import Loaded, resampled
from townhall.cli.session import Session
from townhall.context.strategies import STRATEGIES
from townhall.default_window import WINDOW
from townhall.errors import CommandError, ModelError
from townhall.logbook.log_index import Index
from townhall.logbook.log_reader import parse, read_log
from townhall.model_cache import ModelCache

ONE_TO_NINE = ["One.", "Two.", "Three.", "Four.", "Five.", "Six.", "Seven.", "Eight.", "Nine."]


class Desk:
    """A session in a pipe: type lines, look at what came of them."""

    def __init__(self, folder, monkeypatch, capfd, script=ONE_TO_NINE, **options):
        self.folder, self._monkeypatch, self._capfd = folder, monkeypatch, capfd
        self.loads = []

        def load(wanted):
            if "missing" in str(wanted.model):
                raise ModelError(f"--model {wanted.model} does not exist")
            self.loads.append(str(wanted.model))
            llama = FakeLlama(script, wanted.max_context or WINDOW)
            llama.fingerprint = str(wanted.model)
            return Loaded(llama, wanted.sampling(), FakeBackend(), path=wanted.model)

        settings = {"model": "fake:echo", "log_to": folder} | options
        self.session = Session(ChatState(ChatOptions(**settings), ModelCache(load, resampled)))
        capfd.readouterr()

    @property
    def chat_state(self):
        return self.session.chat_state

    @property
    def llama(self):
        return self.chat_state.loaded.llama

    def type(self, *lines):
        """(exit code, answers, remarks)."""
        self._monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code = self.session.answer_lines()
        out, err = self._capfd.readouterr()
        return code, out.splitlines(), err.splitlines()

    @property
    def said(self):
        return [(exchange.user.text, exchange.reply.text) for exchange in self.chat_state.conversation.exchanges]

    def log(self):
        return read_log(self.chat_state.keeper.path)

    def prompt(self, at=-1):
        """What the model was shown, behind the persona."""
        head = len(self.chat_state.conversation.prompt.head_ids)
        return self.llama.tokenizer.show(self.llama.prompts[at][head:])


@pytest.fixture
def pool(tmp_path, monkeypatch, capfd):
    return lambda *script, **options: Desk(tmp_path / "logs", monkeypatch, capfd, script or ONE_TO_NINE, **options)


def kept(log):
    """The exchanges of a log as they stand."""
    return [(question.text, answer.text) for question, answer in zip(log.turns[::2], log.turns[1::2], strict=True)]


def turn(question, answer=""):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" + (f"{answer}<|im_end|>\n" if answer else "")


def test_a_retry_takes_the_place_of_the_last_answer(pool):
    mine = pool()
    assert mine.type("Hi", "How?", "/retry", "/retry")[:2] == (0, ["One.", "Two.", "Three.", "Four."])
    assert mine.said == kept(mine.log()) == [("Hi", "One."), ("How?", "Four.")]
    assert mine.llama.prompts[1] == mine.llama.prompts[2] == mine.llama.prompts[3]
    assert mine.chat_state.conversation.last.cached_tokens == len(mine.llama.prompts[1]) - 1
    mine.type("And?")
    assert mine.prompt() == turn("Hi", "One.") + turn("How?", "Four.") + turn("And?")
    tree = mine.log().tree
    assert [node.turn.text for node in tree.swipes(tree.nodes[6])] == ["Two.", "Three.", "Four."] and not mine.log().taken


def test_one_ctrl_c_ends_the_reading_of_a_long_prompt(pool, monkeypatch):
    mine = pool()
    mine.type("Hi")
    prefill, passes = mine.llama.prefill, []

    def interrupted(ids, cache, on_progress=None):
        passes.append(len(ids))
        if len(passes) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return prefill(ids, cache, on_progress)

    monkeypatch.setattr(mine.llama, "prefill", interrupted)
    with pytest.raises(KeyboardInterrupt):  # in a pipe it ends the program as well
        mine.type(" ".join(["word"] * 500))
    assert len(passes) == 2 and mine.chat_state.conversation.last.finish_reason == "interrupted"
    assert mine.said == [("Hi", "One.")] and mine.chat_state.unanswered.startswith("word word")
    assert mine.type("/retry")[1][-1] == "Three." and mine.chat_state.conversation.last.cached_tokens == passes[1]  # nothing is read twice


def test_only_a_retry_that_will_say_the_same_again_is_told_so(pool):
    mine = pool(temperature=0)
    assert not any("the same again" in line for line in mine.type("Hi", "/prefill So", "/retry")[2])
    assert any("the same again" in line for line in mine.type("/retry")[2])
    mine.chat_state.unanswered = "Hm"
    assert not any("the same again" in line for line in mine.type("/retry")[2])


def test_a_refused_command_has_its_place_among_answers_in_json(pool):
    code, out, _ = pool(json=True).type("/retry", "Hi", "/undo 0")
    assert code == 2 and [next(iter(json.loads(line))) for line in out] == ["error", "text", "error"]


def test_a_retry_with_a_seed_is_another_sample(pool):
    mine = pool(seed=7)
    mine.type("Hi", "/retry", "/retry", "How?")
    events = [event for event in mine.log().events if not isinstance(event, tuple) and event.role == "assistant"]
    assert [event.facts["sampler"]["seed"] for event in events] == [7, 8, 9, 7]


def test_an_edited_message_takes_the_place_of_the_last(pool, monkeypatch):
    mine = pool()
    assert mine.type("Hi", "How far?", "/edit How far is the moon?\nAnd?")[1] == ["One.", "Two.", "Three.", "Four."]
    assert mine.said == kept(mine.log()) == [("Hi", "One."), ("How far is the moon?", "Three."), ("And?", "Four.")]
    assert mine.prompt(2) == turn("Hi", "One.") + turn("How far is the moon?")
    code, out, err = mine.type("/edit")
    assert (code, out) == (2, []) and "in a pipe /edit takes the new text" in err[0]
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    assert commands.run(mine.chat_state, "/edit") == commands.CommandResult(line="And?", instead=1)


def test_a_message_that_cannot_be_asked_leaves_the_old_one(pool):
    mine = pool(max_context=512)
    code, out, err = mine.type("Hi", "/edit " + "word " * 600, "/retry")
    assert (code, out) == (2, ["One.", "Two."]) and "more than fit" in err[0]
    assert mine.said == kept(mine.log()) == [("Hi", "Two.")]


def test_a_prefill_begins_the_next_answer_or_a_retry_and_no_other(pool):
    mine = pool(" is far.", " is near.", "Yes.")
    assert mine.type("/prefill The moon", "Say", "/prefill The sun", "/retry", "Sure?")[1] == [
        "The moon is far.",
        "The sun is near.",
        "Yes.",
    ]
    assert mine.said == kept(mine.log()) == [("Say", "The sun is near."), ("Sure?", "Yes.")]
    assert mine.prompt(1) == turn("Say") + "The sun" and mine.prompt(2) == turn("Say", "The sun is near.") + turn("Sure?")
    code, _, err = mine.type("/prefill", "/prefill Well [EOS]", "/prefill Oh", "/prefill")
    assert code == 2 and "takes the words" in err[0] and "ends a reply" in err[1] and "as it likes" in err[3]


def test_undo_takes_back_as_many_exchanges_as_it_is_told(pool):
    mine = pool()
    code, _, err = mine.type("A", "B", "C", "D", "/undo", "/undo 2", "E")
    assert code == 0 and "took back 1 exchange; the last thing you said is now 'C'" in err[0] and "took back 2 exchanges" in err[1]
    assert mine.said == kept(mine.log()) == [("A", "One."), ("E", "Five.")] and mine.prompt() == turn("A", "One.") + turn("E")
    code, _, err = mine.type("/undo 99", "/undo", "/undo 0", "/undo two", "/undo -1", "/retry", "/edit")
    assert code == 2 and "nothing has been said now" in err[0] and "nothing to take back" in err[1]
    assert all("a number from 1, not" in line for line in err[2:5]) and err[5] == err[6] == "townhall: nothing has been said yet"
    assert mine.said == kept(mine.log()) == []


def test_another_persona_begins_anew_on_the_model_that_is_there(pool):
    mine = pool()
    mine.type("Hi")
    llama, stacys = mine.llama, mine.chat_state.keeper.path
    code, out, err = mine.type("/persona", "/persona gary", "Hello", "/persona garry")
    assert code == 2 and out == ["Two."] and "* stacy" in err and "did you mean gary?" in err[-1]
    assert mine.llama is llama and mine.loads == ["fake:echo"] and mine.chat_state.persona.name == "Gary"
    assert mine.said == [("Hello", "Two.")] and mine.prompt() == turn("Hello")
    assert kept(read_log(stacys)) == [("Hi", "One.")] and mine.log().head["persona"] == "Gary" and kept(mine.log()) == mine.said


def test_models_are_changed_back_and_forth_without_loading_and_the_talk_goes_on(pool, tmp_path):
    files = [tmp_path / "one.gguf", tmp_path / "two.gguf"]
    for file in files:
        file.touch()
    mine = pool(model=files[0])
    code, out, err = mine.type("Hi", f"/model {files[1]}", "How?", "/model one", "And?", "/model", "/model two.gguf")
    assert (code, out) == (0, ["One.", "One.", "Two."]) and mine.loads == list(map(str, files))
    assert "which was loaded already" not in err[0] and "which was loaded already" in err[1] and f"* {files[0]}" in err[2]
    assert mine.said == [("Hi", "One."), ("How?", "One."), ("And?", "Two.")]
    assert mine.type("Then?")[1] == ["Two."] and mine.prompt() == "".join(turn(*pair) for pair in mine.said[:3]) + turn("Then?")
    assert kept(mine.log()) == mine.said and mine.log().head["settings"]["model"] == str(files[1])
    before, log = mine.said, mine.chat_state.keeper.path
    code, _, err = mine.type("/model missing.gguf")
    assert code == 2 and "missing.gguf does not exist" in err[0] and mine.said == before and mine.chat_state.keeper.path == log


@pytest.mark.parametrize(
    "line, fault",
    [
        ("/settings temprature 1", "there is no setting 'temprature'; did you mean 'temperature'?"),
        ("/settings temprature", "did you mean 'temperature'?"),
        ("/settings temperature -1", "temperature must be a number from 0, not -1"),
        ("/settings temperature warm", "temperature must be a number from 0, not 'warm'"),
        ("/settings top_p 2", "top_p must be a number above 0 and up to 1, not 2"),
        ("/settings count 0", "count must be a whole number from 1, not 0"),
        ("/settings context glide", f"context must be one of {', '.join(STRATEGIES)}, not 'glide'"),
        ("/settings timing {a: [", "timing must be true or false"),
        ("/settings device CL", "device cannot change while the session runs; leave, and start it again with --device"),
        ("/settings max_context 2048", "start it again with --max-context"),
        ("/settings model x.gguf", "use /model PATH"),
        ("/settings personality gary", "use /persona NAME"),
        ("/context half", "/context takes nothing, or the word full, not 'half'"),
        ("/reset now", "/reset takes nothing after it"),
        ("/retry now", "/retry takes nothing after it"),
        ("/help me", "there is no /me"),
        ("/load", "/load takes a log"),
        ("/load nothing", "no log in"),
        ("/load nothing.md", "is not a file"),
        ("/save talk.txt", "end it in .md"),
    ],
)
def test_wrong_arguments_are_one_clear_line_and_change_nothing(pool, line, fault):
    mine = pool()
    mine.type("Hi")
    options, log = mine.chat_state.options, mine.log()
    code, out, err = mine.type(line, "Ho")
    assert code == 2 and out == ["Two."] and fault in err[0] and err[0].startswith("townhall: ") and len(err) == 1
    assert mine.chat_state.options == options and mine.said == [("Hi", "One."), ("Ho", "Two.")] and mine.log().id == log.id


def test_settings_change_what_follows(pool):
    mine = pool("One two three four five.")
    code, out, err = mine.type(
        "/settings temperature 0.9", "/settings seed 3", "/settings count 2", "Hi", "/settings seed null", "/settings count"
    )
    assert code == 0 and out == ["One two"] and "count is 2; it takes a whole number from 1" in err
    facts = mine.log().turns[-1].facts
    assert facts["sampler"] | {"temperature": 0.9, "seed": 3} == facts["sampler"] and facts["max_tokens"] == 2
    assert mine.chat_state.loaded.sampling.seed is None and mine.chat_state.conversation.window.reserve == 2
    listed = [line.split() for line in mine.type("/settings")[2]]
    assert ["temperature", "0.9"] in listed and mine.loads == ["fake:echo"]


def test_samplers_that_few_people_change_are_set_and_shown_where_they_were(pool):
    mine = pool()
    shown = "\n".join(mine.type("/settings")[2])
    assert "top_k" in shown and "dry_multiplier" not in shown
    code, _, err = mine.type("/settings dry_multiplier 0.8", '/settings dry_sequence_breakers ["\\n", "Ada:"]', "Hi")
    assert code == 0 and 'dry_sequence_breakers is ["\\n", "Ada:"] for this session' in err
    code, _, err = mine.type("/settings mirostat 3")
    assert code == 2 and "mirostat must be a whole number from 0 to 2" in err[-1]
    sampler = mine.log().turns[-1].facts["sampler"]
    assert (sampler["dry_multiplier"], sampler["dry_sequence_breakers"]) == (0.8, ["\n", "Ada:"]) and "mirostat" not in sampler
    shown = "\n".join(mine.type("/settings", "/settings typical_p")[2])
    assert "dry_multiplier         0.8" in shown and "typical_p is 1.0; it takes a number above 0" in shown


def test_how_prompts_are_laid_out_changes_in_a_new_log_that_has_the_talk(pool):
    mine = pool()
    mine.type("Hi")
    before = mine.chat_state.keeper.path
    assert mine.type("/settings format chat_log", "Ho")[0] == 0
    assert mine.prompt() == "User: Hi\nStacy: One. [EOS]\nUser: Ho\nStacy:" and mine.chat_state.keeper.path != before
    assert (
        kept(mine.log()) == mine.said and mine.log().head["settings"]["format"] == "chat_log" and kept(read_log(before)) == [("Hi", "One.")]
    )


def test_a_branch_begins_with_what_was_said_and_the_old_log_stays(pool):
    mine = pool()
    mine.type("Hi", "Ho")
    trunk = mine.chat_state.keeper.path
    mine.type("/branch Second thoughts")
    assert mine.chat_state.keeper.path != trunk and mine.log().title == "Second thoughts" and kept(mine.log()) == mine.said
    mine.type("/undo", "Ha")
    assert kept(mine.log()) == mine.said == [("Hi", "One."), ("Ha", "Three.")] and kept(read_log(trunk)) == [("Hi", "One."), ("Ho", "Two.")]
    assert mine.prompt() == turn("Hi", "One.") + turn("Ha")
    assert {entry.title for entry in Index(mine.folder).entries()} == {"Second thoughts", ""}


def test_a_talk_is_saved_and_taken_up_again(pool, tmp_path):
    mine = pool()
    path = tmp_path / "far" / "talk.md"
    mine.type("Hi", "Ho", f"/save {path}", "/reset", "Ha")
    saved = path.read_bytes()
    code, _, err = mine.type(f"/save {path}", f"/load {path}", "And?")
    assert code == 2 and "is there already" in err[0] and "remembers 2 exchanges" in err[1]
    assert mine.prompt() == turn("Hi", "One.") + turn("Ho", "Two.") + turn("And?") and path.read_bytes() == saved
    assert kept(mine.log()) == mine.said and mine.said[:2] == kept(read_log(path))
    assert str(mine.chat_state.keeper.path) in mine.type("/save")[2][0]


def test_a_log_of_another_persona_brings_that_persona(pool):
    mine = pool()
    mine.type("Hi", "/persona gary", "Hello")
    garys = mine.chat_state.keeper.id
    mine.type("/persona lexie", f"/load {garys}", "And?")
    assert mine.chat_state.persona.name == "Gary" and mine.prompt() == turn("Hello", "Two.") + turn("And?")


def test_without_a_log_everything_works_but_a_branch(pool):
    mine = pool(log=False)
    code, out, err = mine.type("Hi", "/retry", "/edit Ho", "/undo", "/persona gary", "Hi", "/settings context stop", "/branch", "/save")
    assert code == 2 and len(out) == 4 and any("nothing to branch off" in line for line in err)
    (path,) = mine.folder.iterdir()
    assert kept(read_log(path)) == mine.said == [("Hi", "Four.")]


def test_lines_that_only_look_like_commands_are_said_in_a_pipe(pool):
    mine = pool()
    assert mine.type("/etc/passwd is a file", "/exit", "never said")[1] == ["One."] and mine.said[0][0] == "/etc/passwd is a file"
    with pytest.raises(CommandError, match="there is no /undoo; did you mean '/undo'"):
        commands.run(mine.chat_state, "/undoo")
    assert commands.run(mine.chat_state, "/quit").leave


@pytest.mark.parametrize("alias", commands.ALIASES)
def test_other_names_of_a_command_are_commands_in_a_pipe_too(pool, alias):
    mine = pool()
    assert mine.type(alias, "never said")[1] == [] and not mine.said
    commands.run(mine.chat_state, f"/help {alias}")


def test_every_command_is_in_the_help_and_has_a_line_of_its_own(pool):
    mine = pool()
    listed = "\n".join(mine.type("/help")[2])
    for name, help in commands.completions().items():
        assert name in listed and help in listed and help in mine.type(f"/help {name[1:]}")[2][0]


def test_an_unanswered_question_is_taken_back_in_the_log(pool, tmp_path):
    mine = pool("One.", [ModelError("the model fell over")], "Two.")
    code, out, _ = mine.type("Hi", "Ho", "/retry", "/undo")
    assert (code, out) == (2, ["One.", "Two."]) and mine.said == kept(mine.log()) == [("Hi", "One.")]
    pieces = mine.chat_state.ask("Hm")
    pieces.close()
    log = parse(mine.chat_state.keeper.path.read_bytes(), tmp_path)
    assert log.turns[-1].text == "Hm" and mine.chat_state.last_question == "Hm"  # the program was killed here


SESSION = [
    "Hi there",
    "How are you, my friend?",
    "/prefill Well,",
    "/retry",
    "One more",
    "/undo",
    "/edit What else?",
    "/branch On",
    "Two more",
]
LATER = [
    "Three more",
    "/retry",
    "/settings count 3",
    "Count to ten or so",
    "/settings context shift",
    "Four",
    "/load last",
    "/undo 2",
    "Five",
]


@pytest.fixture
def townhall(monkeypatch, capfd):
    def run(*args, stdin=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in stdin)))
        code = main(list(map(str, args)))
        return (code, *capfd.readouterr())

    return run


def test_every_log_that_commands_leave_replays_and_is_indexed_the_same_anew(townhall, tmp_path):
    """Two sessions, the second of which goes on with the first one's last log."""
    chat = ("chat", "--model", "fake:echo", "--log-to", tmp_path)
    assert townhall(*chat, stdin=SESSION)[0] == 0
    assert townhall("chat", "--resume", "last", "--log-to", tmp_path, stdin=LATER)[0] == 0
    logs = sorted(tmp_path.glob("*.md"))
    assert len(logs) == 4
    for log in logs:
        code, out, err = townhall("replay", log)
        assert code == 0 and out.endswith("all the same\n"), (log.read_text(), out, err)
        assert not read_log(log).damages
    assert Index(tmp_path).rows() == Index(tmp_path, anew=True).rows()
    (log,) = (log for log in logs if 'undo {"turns": 2}' in log.read_text())
    log.write_text(log.read_text().replace('undo {"turns": 2}', 'undo {"turns": 1}'))
    code, out, _ = townhall("replay", log)
    assert code == 1 and "its prompt is another one" in out


def test_a_completion_is_kept_and_repeated_unless_it_is_not_to_be(townhall, tmp_path):
    complete = ("chat", "--model", "fake:echo", "--log-to", tmp_path, "--prompt")
    assert townhall(*complete, "Once\nupon a time", "--no-log")[1] == "upon a time\n" and not list(tmp_path.glob("*.md"))
    townhall(*complete, "Once\nupon a time")
    (path,) = tmp_path.glob("*.md")
    assert [turn.text for turn in read_log(path).turns] == ["Once\nupon a time", "upon a time"]
    assert townhall("replay", path)[:2] == (0, "1 reply, 3 tokens: all the same\n")
    code, _, err = townhall("chat", "--resume", path)
    assert code == 2 and "no conversation" in err
    assert "no conversation" in townhall(*complete[:-1], stdin=[f"/load {path}"])[2]


@pytest.mark.parametrize(
    "args, fault",
    [
        (("--resume", "nothing"), "no log in"),
        (("--resume", "last", "--personality", "gary"), "--personality gary is not what log"),
        (("--resume", "last", "--max-context", "512"), "--max-context 512 is not what log"),
        (("--resume", "last", "--prompt", "x"), "pass one of them"),
    ],
)
def test_what_cannot_be_resumed_is_refused_in_one_sentence(townhall, tmp_path, args, fault):
    townhall("chat", "--model", "fake:echo", "--log-to", tmp_path, stdin=["Hi"])
    (path,) = tmp_path.glob("*.md")
    before = path.read_bytes()
    code, out, err = townhall("chat", "--log-to", tmp_path, *args)
    assert code == 2 and not out and fault in err and len(err.splitlines()) == 1 and path.read_bytes() == before


def test_the_last_log_is_the_last_that_can_be_gone_on_with(townhall, tmp_path):
    chat = ("chat", "--model", "fake:echo", "--log-to", tmp_path)
    townhall(*chat, stdin=["Hi"])
    (chat_state,) = tmp_path.glob("*.md")
    chat_state.rename(older := tmp_path / "a.md")
    townhall(*chat, "--prompt", "Once")
    assert f"going on with {older}: 1 exchange\n" in townhall("chat", "--resume", "last", "--log-to", tmp_path)[2]
    assert f"remembers 1 exchange from {older}" in townhall(*chat, stdin=["Ho", "/load last"])[2]
    assert townhall("log", "show", "last", "--log-to", tmp_path)[1].endswith("Ho\n")
    for path in (older, *Index(tmp_path).folder.glob("*.md")):
        path.unlink(missing_ok=True)
    assert "no log in" in townhall("chat", "--resume", "last", "--log-to", tmp_path)[2]
    townhall(*chat, "--prompt", "Once")
    assert "holds a text that was carried on" in townhall("chat", "--resume", "last", "--log-to", tmp_path)[2]


def test_a_log_that_a_crash_left_is_gone_on_with(townhall, tmp_path):
    path = tmp_path / "a.md"
    townhall("chat", "--model", "fake:echo", "--log-to", path, stdin=["Hi", "Ho"])
    path.write_text(path.read_text() + "\n## User\nAnd then it cra")
    townhall("chat", "--resume", path, stdin=["Again", "/undo", "Once more"])
    assert kept(read_log(path)) == [("Hi", "Hi"), ("Ho", "Ho"), ("Once more", "Once more")]
    assert townhall("replay", path)[0] == 0
