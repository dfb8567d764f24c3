import json
import os
import subprocess
import sys

import pytest

from tests.reference.tiny_formats import tiny_weights, write_meta
from tests.townhall.fake import FakeBackend, FakeLlama
from townhall.cli import chat_options, complete_text, main, model_loading
from townhall.cli.model_loading import check_size
from townhall.default_window import WINDOW

pytestmark = pytest.mark.slow


@pytest.fixture
def townhall(monkeypatch, capfd):
    """Run a command line over a scripted model; gives (exit code, stdout, stderr)."""

    def run(*args, script=("Fine, thanks.",), stdin=None):
        def load(flags):
            run.llama = FakeLlama(script, max_context=flags.max_context or WINDOW)
            return model_loading.Loaded(run.llama, flags.sampling(), FakeBackend())

        monkeypatch.setattr(model_loading, "load", load)
        monkeypatch.setattr(complete_text, "load", load)
        if stdin is not None:
            read, write = os.pipe()
            os.write(write, stdin if isinstance(stdin, bytes) else stdin.encode())
            os.close(write)
            monkeypatch.setattr("sys.stdin", os.fdopen(read, encoding="utf-8"))
        code = main.main(list(args))
        out, err = capfd.readouterr()
        return code, out, err

    return run


def python(code, **env):
    environment = {name: value for name, value in os.environ.items() if name not in ("CPU", "GPU", "DEV")} | env
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["chat", "--help"], ["devices", "--help"], ["-h"]])
def test_help_answers_without_tinygrad_numpy_or_jinja(args):
    heavy = "{'tinygrad', 'numpy', 'jinja2', 'app.models.llama'} & set(sys.modules)"
    done = python(f"import sys; from townhall.cli.main import main; assert main({args!r}) == 0; assert not {heavy}, {heavy}")
    assert done.returncode == 0, done.stderr
    assert "townhall" in done.stdout and not done.stderr


def test_the_sampling_flags_default_to_what_a_conversation_does_by_itself():
    done = python(
        "from townhall.cli.chat_options import ChatOptions; from townhall.conversation import default_sampling\n"
        "mine, theirs = ChatOptions().sampling(), default_sampling(); assert mine == theirs, (mine, theirs)",
        DEV="CPU",
    )
    assert done.returncode == 0, done.stderr


def test_flags_and_options_agree_on_every_default():
    from townhall.cli.chat import chat

    given = chat.make_context("chat", []).params
    assert given.pop("config") == () and given.pop("resume") is None
    assert chat_options.ChatOptions(**given) == chat_options.ChatOptions()


def test_piped_lines_are_answered_one_by_one_and_stdout_holds_nothing_else(townhall):
    code, out, err = townhall("chat", stdin="Hi\n\n  \nHow are you?\n", script=["Hello.", "Fine.\n\nAnd you?"])
    assert (code, out) == (0, "Hello.\nFine.\n\nAnd you?\n")
    assert err.startswith("Stacy is ready: ") and "tokens in" in err and "\x1b" not in out + err


def test_what_is_piped_goes_to_the_template_as_written(townhall):
    assert townhall("chat", stdin=b"\xef\xbb\xbf/help edit\n   \n\tdef f():  \n \xef\xbb\xbfx\n")[0] == 0
    first, second = map(townhall.llama.tokenizer.show, townhall.llama.prompts)  # the first line was a command
    assert first.endswith("<|im_start|>user\n\tdef f():  <|im_end|>\n<|im_start|>assistant\n")
    assert "<|im_start|>user\n \N{ZERO WIDTH NO-BREAK SPACE}x<|im_end|>" in second


def test_thoughts_are_no_part_of_what_is_piped_on(townhall):
    script = ["<think>Two and two.</think>\n\nFour."]
    assert townhall("chat", stdin="2 + 2?\n", script=script)[1] == "Four.\n"
    reply = json.loads(townhall("chat", "--json", stdin="2 + 2?\n", script=script)[1])
    assert (reply["text"], reply["reasoning"]) == ("Four.", "Two and two.")
    assert townhall("chat", "--think-tokens", "0", stdin="Hi\n")[0] == 2


def test_input_that_ends_without_a_newline_or_is_no_utf8_is_answered_too(townhall):
    assert townhall("chat", stdin=b"caf\xe9\nlast")[:2] == (0, "Fine, thanks.\n" * 2)
    assert townhall("chat", stdin="")[:2] == (0, "")


def test_json_prints_one_object_for_each_answer(townhall):
    code, out, _ = townhall("chat", "--json", stdin="Hi\nHo\n")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(answers) == 2
    for answer in answers:
        assert answer["text"] == "Fine, thanks." and answer["finish_reason"] == "stop" and answer["device"] == "FAKE"
        assert answer["tokens"] == 4 and answer["prompt_tokens"] > answer["cached_tokens"] > 0
        assert {"prefill_seconds", "decode_seconds", "receipt", "backend"} <= answer.keys()
    assert answers[0]["receipt"]["strategy"] == "slide"


def test_timing_names_the_device_on_stderr(townhall):
    code, out, err = townhall("chat", "--timing", stdin="Hi\n")
    assert out == "Fine, thanks.\n" and "4 tokens in" in err and "FAKE: a scripted double" in err


def test_profile_tells_where_the_time_went(townhall):
    _, out, err = townhall("chat", "--profile", stdin="Hi\n")
    assert out == "Fine, thanks.\n"
    assert all(name in err for name in ("read the persona", "read prompts", "write answers", "in all"))


def test_a_line_that_cannot_fit_is_refused_and_the_others_are_answered(townhall):
    code, out, err = townhall("chat", "--max-context", "512", stdin=f"Hi\n{'word ' * 600}\nHo\n")
    assert (code, out) == (2, "Fine, thanks.\nFine, thanks.\n")
    refusals = [line for line in err.splitlines() if line.startswith("townhall: ")]
    assert len(refusals) == 1 and "512" in refusals[0] and "--max-context" in refusals[0]


def test_a_refused_line_has_its_place_in_json(townhall):
    _, out, _ = townhall("chat", "--json", "--max-context", "512", stdin=f"{'word ' * 600}\nHi\n")
    first, second = map(json.loads, out.splitlines())
    assert "512" in first["error"] and second["text"] == "Fine, thanks."


def test_what_was_dropped_is_said_in_one_line_on_stderr(townhall):
    code, out, err = townhall("chat", "--max-context", "512", stdin="word " * 30 + "\n" + "Hi there\n" * 12, script=["word " * 40])
    assert code == 0 and len(out.splitlines()) == 13
    assert any(line.startswith("context (slide): the ") for line in err.splitlines())


def test_an_answer_cut_off_is_said_to_be(townhall):
    code, out, err = townhall("chat", "--count", "2", stdin="Hi\n")
    assert out == "Fine,\n" and "cut off after 2 tokens" in err


def test_prompt_prints_the_continuation_only(townhall):
    code, out, err = townhall("chat", "--prompt", "Once upon a time", script=[" there was a king."])
    assert (code, out) == (0, " there was a king.\n")
    assert townhall.llama.prompts[0][0] == 0


def test_a_model_that_has_nothing_to_add_to_a_prompt_is_explained(townhall):
    code, out, err = townhall("chat", "--prompt", "Who are you?", script=[""])
    assert (code, out.strip()) == (0, "") and "the model ended the text at once" in err


def test_prompt_with_count_timing_and_json(townhall):
    code, out, err = townhall("chat", "--prompt", "Once", "--count", "3", "--timing", "--json", script=[" there was a king."])
    answer = json.loads(out)
    assert (answer["text"], answer["tokens"], answer["finish_reason"]) == (" there was a", 3, "length")
    assert "FAKE: a scripted double" in err


@pytest.mark.parametrize("words", [1022, 1023, 1024, 2047])
def test_prompts_of_any_length_under_slide_and_stop(townhall, words):
    prompt = " word" * words  # and BOS
    code, out, err = townhall("chat", "--prompt", prompt, "--count", "1")
    assert code == 0 and ("the beginning of the prompt" in err) == (words > 1023)
    code, out, err = townhall("chat", "--prompt", prompt, "--context", "stop", "--count", "1")
    assert code == (0 if words <= 1023 else 2)
    if code:
        assert err.startswith("townhall: the prompt has") and len(err.splitlines()) == 1 and not out


@pytest.mark.parametrize(
    "args, sentence",
    [
        (["chat", "--personality", "stacey"], "did you mean stacy"),
        (["chat", "--personality", "nobody.yaml"], "nobody.yaml is not a file"),
        (["chat", "--context", "silde"], "'silde' is not one of 'slide', "),
        (["chat", "--max-context", "many"], "'--max-context': 'many' is no whole number (see townhall chat --help)"),
        (["chat", "--count", "0"], "'--count': 0 is too small; pass 1 or more (see"),
        (["chat", "--temperature", "hot"], "'hot' is no number"),
        (["serve", "--port", "70000"], "70000 is out of range; pass a number from 0 to 65535"),
        (["chat", "--nonsense"], "No such option"),
        (["chatt"], "No such command 'chatt'"),
    ],
)
def test_wrong_flags_get_one_sentence_and_exit_code_2(townhall, args, sentence):
    code, out, err = townhall(*args, stdin="Hi\n")
    assert code == 2 and not out and sentence in err
    assert err.startswith("townhall: ") and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "flags, sentence",
    [
        ({"model": "missing.gguf"}, "--model missing.gguf does not exist"),
        ({"size": "7B"}, "--size 7B --gen 1 means .*7B, which does not exist; fetch it with"),
        ({"size": "70B", "gen": "2"}, "LLaMA-2.*70B"),
        ({"gen": "code"}, "LLaMA-code"),
        ({}, "the default model is not there yet: run `make chat`, or `bash .*pull_llama.sh`, or pass --model"),
        ({"model": "x.gguf", "size": "7B"}, "pass one of them"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_the_way_to_get_it(tmp_path, monkeypatch, flags, sentence):
    monkeypatch.setattr(chat_options, "WEIGHTS", tmp_path)
    flags = {name: chat_options.Path(value) if name == "model" else value for name, value in flags.items()}
    with pytest.raises(chat_options.ModelError, match=sentence):
        chat_options.ChatOptions(**flags).model_path()


def test_size_and_gen_name_folders_under_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_options, "WEIGHTS", tmp_path)
    for folder, flags in (("13B", {"size": "13B"}), ("LLaMA-2/7B", {"gen": "2"})):
        (tmp_path / folder).mkdir(parents=True)
        assert chat_options.ChatOptions(**flags).model_path() == tmp_path / folder


def test_weights_of_another_size_than_the_folders_name_are_named(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(chat_options, "WEIGHTS", tmp_path)
    write_meta(tmp_path / "7B", tiny_weights())
    assert main.main(["chat", "--size", "7B", "--prompt", "hello"]) == 2
    error = capfd.readouterr().err
    assert "--size 7B found" in error and "holds 0.000119 billion parameters" in error and error.count("\n") == 1


@pytest.mark.parametrize("size, count, fits", [("7B", 6.74e9, True), ("30B", 32.5e9, True), ("1B", 1.24e9, True), ("13B", 6.74e9, False)])
def test_sizes_are_told_apart_as_their_makers_round_them(tmp_path, monkeypatch, size, count, fits):
    folder = write_meta(tmp_path / "x", tiny_weights())
    monkeypatch.setattr("app.models.llama.checkpoint.checkpoint.parameters", lambda config: count)
    if fits:
        check_size(size, folder)
    else:
        with pytest.raises(chat_options.ModelError, match="--size 13B found .* holds 6.74 billion"):
            check_size(size, folder)


def test_a_file_that_is_no_model_ends_with_one_sentence(tmp_path):
    path = tmp_path / "notes.gguf"
    path.write_text("not a model")
    done = python(f"import sys; from townhall.cli.main import main; sys.exit(main(['chat', '--model', {str(path)!r}]))", DEV="CPU")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("townhall: ") and "notes.gguf" in done.stderr and len(done.stderr.splitlines()) == 1


def test_both_switches_are_refused_before_anything_is_loaded(tmp_path):
    path = tmp_path / "notes.gguf"
    path.write_text("not a model")
    code = f"import sys; from townhall.cli.main import main; sys.exit(main(['chat', '--model', {str(path)!r}]))"
    done = python(code, CPU="1", GPU="1")
    assert done.returncode == 2 and "CPU=1 and GPU=1" in done.stderr


def test_a_reader_that_goes_away_ends_the_program_quietly():
    program = f"{sys.executable} -m tests.townhall.cli.fake_townhall chat"
    done = subprocess.run(["bash", "-c", f"yes Hi | {program} | head -1; echo ${{PIPESTATUS[1]}}"], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["Fine, thanks.", "1"]
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
