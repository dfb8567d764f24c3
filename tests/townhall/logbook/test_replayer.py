"""A kept conversation repeats itself, or the first token that does not is named."""

import itertools
import json
import subprocess
import sys

import pytest

from app.models.llama.sampling_params import SamplingParams
from tests.townhall.cli.test_keeping import townhall as chat
from tests.townhall.test_conversation import PERSONA
from townhall.cli.main import main
from townhall.context.strategies import STRATEGIES
from townhall.conversation import Conversation
from townhall.fake.fake_model import open_fake
from townhall.logbook.log_reader import read_log
from townhall.logbook.logged_chat import LoggedChat
from townhall.logbook.recording_model import RecordedModel
from townhall.logbook.replayer import RehearsedModel, ReplayResult
from townhall.logbook.replayer import replay as go_through

pytestmark = pytest.mark.slow

SCRIPT = "replies:\n- One two three.\n- Four five.\n- {text: 'Six seven eight nine. ', pause: 0.0}\n- ''\n- Ten.\n"
LINES = "a\nb\nc\nd\ne\n"


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.yaml"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def kept(tmp_path, script):
    """A log of five replies."""
    chat("--log-to", tmp_path / "a.md", stdin=LINES, model=f"fake:script={script}")
    return tmp_path / "a.md"


@pytest.fixture
def replay(capfd):
    """Run `townhall replay …`; gives (exit code, stdout, stderr)."""

    def run(*args):
        code = main(["replay", *map(str, args)])
        return (code, *capfd.readouterr())

    return run


def test_a_conversation_repeats_itself(replay, kept):
    assert replay(kept)[:2] == (0, "5 replies, 15 tokens: all the same\n")
    assert json.loads(replay(kept, "--json")[1]) == {"id": read_log(kept).id, "of": 5, "replies": 5, "tokens": 15, "difference": None}


def test_the_last_one_is_found_by_name(replay):
    chat(stdin="Hi\n")
    assert replay("last")[:2] == (0, "1 reply, 1 token: all the same\n")


@pytest.mark.parametrize(
    "change, sentence, position",
    [
        (("five", "nine"), "differs at token 2: the log has id ", 1),
        (("Four five", "Six five"), "differs at token 1: the log has id ", 0),
        (("Four five.", "Four five"), "differs at token 3: the log has '.' (id ", 2),
        (("Four five.", "Four five. More"), "differs at token 4: the log has the end, this run ' More' (id ", 3),
    ],
)
def test_the_first_token_that_differs_is_named(replay, kept, script, change, sentence, position):
    script.write_text(SCRIPT.replace(*change))
    code, out, err = replay(kept)
    assert code == 1 and out.startswith(f"reply 2 (line {read_log(kept).turns[3].line} of the log)") and sentence in out
    assert "the log's weights: fake" in err
    found = json.loads(replay(kept, "--json")[1])
    assert found["replies"] == 1 and found["difference"]["reply"] == 2 and found["difference"]["position"] == position


def test_a_prompt_that_changed_is_named_instead(replay, kept):
    kept.write_text(kept.read_text().replace("## User\nb\n", "## User\nanother question\n"))
    code, out, _ = replay(kept)
    assert code == 1 and "reply 2 (line" in out and "its prompt is another one" in out
    kept.write_text(kept.read_text().replace("personality: stacy", "personality: gary"))
    assert "reply 1 (line" in replay(kept)[1]


def test_resets_refusals_and_unanswered_questions_do_not_disturb_it(replay, tmp_path, script):
    path = tmp_path / "b.md"
    for lines in ("Hi\n" + "word " * 600 + "\nHo\n", "Again\n"):
        chat("--max-context", "512", "--log-to", path, stdin=lines)
    path.write_text(path.read_text() + "\n## User\nAnd then it cra")
    assert replay(path)[:2] == (0, "3 replies, 3 tokens: all the same\n")


def test_what_a_long_talk_let_go_is_let_go_again(replay, tmp_path):
    for context in ("slide", "shift", "summarize"):
        path = tmp_path / f"{context}.md"
        chat("--context", context, "--max-context", "512", "--log-to", path, stdin=("word " * 25 + "\n") * 12)
        assert any(turn.facts["receipt"]["dropped"] for turn in read_log(path).turns[1::2])
        assert replay(path)[:2] == (
            0,
            f"12 replies, {sum(len(t.facts['tokens']) for t in read_log(path).turns[1::2])} tokens: all the same\n",
        )


def test_an_answer_that_was_interrupted_is_repeated_as_far_as_it_went(tmp_path):
    """In one process, so that the turn after it stands on what was shown of it."""
    model = open_fake("fake:script=" + write_script(tmp_path, "replies: [One two three four five., Well then.]"))
    recorded = RecordedModel(model)
    conversation = Conversation(recorded, PERSONA, sampling=SamplingParams())
    keeper = LoggedChat.begin(tmp_path / "a.md", recorded, PERSONA, {}, {})
    for text, pieces in (("Go", 3), ("And?", None), ("Never mind", 0)):
        reply = conversation.reply(text)
        keeper.asked(text)
        list(itertools.islice(reply, pieces))
        reply.close()
        if pieces != 0:  # a reply that was never begun has no figures
            keeper.answered(conversation.last)
    log = read_log(tmp_path / "a.md")
    assert [(turn.text, turn.facts["finish_reason"]) for turn in log.turns[1::2]] == [
        ("One two three", "interrupted"),
        ("Well then.", "stop"),
    ]
    rehearsed = RehearsedModel(open_fake("fake:script=" + str(tmp_path / "s.yaml")))
    again = Conversation(rehearsed, PERSONA)
    assert go_through(log, rehearsed, again) == ReplayResult(2, 6)
    assert [e.reply.text for e in again.exchanges] == ["One two three", "Well then."]


def write_script(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    return str(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    "change, fault",
    [
        (("settings:", "sittings:"), "its front matter does not say how the talk was held"),
        (("context: slide", "context: glide"), f"front matter: context must be one of {', '.join(STRATEGIES)}, not 'glide'"),
        (("fake:script=", "fake:sript="), "names no double"),
        (('"tokens": [', '"tokens": ["x", '), "the receipt of this reply lacks what it takes to repeat it"),
        (('"sampler": {', '"sampler": {"heat": 3, '), "the receipt of this reply lacks what it takes"),
        (('"top_k": 40', '"top_k": 1.5'), "the receipt of this reply lacks what it takes"),
        (('"seed": ', '"seed": -'), "--seed -"),
        (('"top_p": 0.95', '"top_p": 2'), "--top-p 2 is out of range"),
        (("max_context: 1024", "max_context: 10"), "persona takes"),
    ],
)
def test_a_log_that_cannot_be_repeated_is_refused_in_one_sentence(replay, kept, change, fault):
    assert change[0] in kept.read_text()
    kept.write_text(kept.read_text().replace(*change, 1))
    code, out, err = replay(kept)
    assert code == 2 and not out and fault in err.splitlines()[-1] and err.splitlines()[-1].startswith("townhall: ")


@pytest.mark.weights
def test_the_default_model_repeats_what_it_said(tmp_path, default_model):
    path = tmp_path / "a.md"
    chat("--count", "30", "--temperature", "0.9", "--log-to", path, stdin="How far is the moon?\nAnd the sun?\n", model=str(default_model))
    command = [sys.executable, "-m", "townhall", "replay", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    tokens = sum(len(turn.facts["tokens"]) for turn in read_log(path).turns[1::2])
    assert (done.returncode, done.stdout) == (0, f"2 replies, {tokens} tokens: all the same\n"), done.stderr
    path.write_text(path.read_text().replace('"temperature": 0.9', '"temperature": 30.0'))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "differs at token" in done.stdout


def test_settings_of_samplers_are_noted_where_they_were_changed(tmp_path, replay):
    changed = ["--dry-multiplier", "0.8", "--dry-sequence-breaker", r"\n", "--dry-sequence-breaker", "User:", "--mirostat", "2"]
    path = tmp_path / "b.md"
    for flags in (["--log-to", tmp_path / "plain.md"], [*changed, "--log-to", path], [*changed, "--log-to", path]):
        chat(*flags, stdin="a\n")
    plain, noted = (read_log(tmp_path / name) for name in ("plain.md", "b.md"))
    usual = {"temperature", "top_k", "top_p", "min_p", "top_n_sigma", "repeat_penalty", "reply_ngram_penalty"}
    assert set(plain.turns[1].facts["sampler"]) == usual | {"seed"} and "mirostat" not in plain.head["settings"]
    assert len(noted.turns) == 4  # the second call went on in the file
    more = {"dry_multiplier": 0.8, "dry_sequence_breakers": ["\n", "User:"], "mirostat": 2}
    for turn in noted.turns[1::2]:
        assert {key: value for key, value in turn.facts["sampler"].items() if key not in {*usual, "seed"}} == more
    assert {key: noted.head["settings"][key] for key in more} == more
    assert SamplingParams.from_note(noted.turns[1].facts["sampler"]).dry_sequence_breakers == ("\n", "User:")
    assert replay(path)[0] == 0 and replay(tmp_path / "plain.md")[0] == 0
    for name, flags, complaint in (
        ("plain.md", changed, "with dry_multiplier 0.0, and this one has 0.8"),
        ("b.md", changed[:-2], "with mirostat 2, and this one has 0"),
    ):
        refused = chat(*flags, "--log-to", tmp_path / name, stdin="a\n")
        assert refused.returncode == 2 and complaint in refused.stderr


@pytest.mark.weights
def test_the_default_model_repeats_what_these_samplers_drew(tmp_path, default_model):
    path = tmp_path / "a.md"
    flags = "--dry-multiplier 0.8 --xtc-probability 0.5 --typical-p 0.9 --dynatemp-range 0.2 --frequency-penalty 0.1 --count 30".split()
    chat("--temperature", "0.9", *flags, "--log-to", path, stdin="How far is the moon?\nAnd the sun?\n", model=str(default_model))
    command = [sys.executable, "-m", "townhall", "replay", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("all the same\n"), done.stderr
    path.write_text(path.read_text().replace('"xtc_probability": 0.5', '"xtc_probability": 1.0'))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "differs at token" in done.stdout
