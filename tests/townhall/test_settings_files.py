"""Settings: layers that win over each other, each value with its origin; whatever is wrong is one sentence with file and line."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from townhall.cli.chat_options import ChatOptions
from townhall.cli.main import main
from townhall.cli.settings_files import DEFAULT, SHIPPED, find, resolve, user_folder
from townhall.context.strategies import STRATEGIES
from townhall.errors import SettingsError

pytestmark = pytest.mark.slow

DEFAULTS = vars(ChatOptions())
PER_CALL = {"prompt", "json"}  # what is said anew with every call, and is no setting


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.fixture
def own(tmp_path):
    return lambda text, name="settings.yaml": write(user_folder() / name, text)


def options(*names, **flags):
    return ChatOptions(**{key: setting.value for key, setting in resolve(DEFAULTS, names, flags).items()})


def test_nothing_said_is_what_the_flags_default_to():
    assert options() == ChatOptions()
    assert {setting.source for setting in resolve(DEFAULTS).values()} == {"default"}


def test_the_file_of_defaults_says_what_the_code_does():
    shipped = yaml.safe_load(DEFAULT.read_text())
    assert {key: DEFAULTS[key] for key in shipped} == shipped and len(shipped) > 10


def test_every_flag_is_a_setting_but_those_of_one_call():
    from townhall.cli.settings_schema import Settings

    assert set(Settings.model_fields) == set(DEFAULTS) - PER_CALL


def test_the_files_that_ship_are_valid_and_lie_where_people_look():
    assert {path.stem for path in SHIPPED.glob("*.yaml")} >= {"default", "experiment"}
    for path in SHIPPED.glob("*.yaml"):
        options(path.stem)
        assert (Path(__file__).parents[2] / "config" / path.name).samefile(path)


def test_flags_win_over_files_later_files_over_earlier_and_those_over_the_users_own(tmp_path, own):
    mine = own("temperature: 0.1\ntop_k: 1\ncount: 10\nseed: 1\n")
    first = write(tmp_path / "first.yaml", "top_k: 2\ncount: 20\nseed: 2\n")
    second = write(tmp_path / "second.yaml", "# a remark\ncount: 30\nseed: 3\n")
    settings = resolve(DEFAULTS, [first, second], {"seed": 4})
    assert {key: (s.value, s.origin) for key, s in settings.items() if s.source != "default"} == {
        "temperature": (0.1, f"{mine}, line 1"),
        "top_k": (2, f"{first}, line 1"),
        "count": (30, f"{second}, line 2"),
        "seed": (4, "flag"),
    }


def test_a_file_can_take_another_one_back_to_the_default(tmp_path):
    hot, cool = write(tmp_path / "hot.yaml", "temperature: 0.9\n"), write(tmp_path / "cool.yaml", "temperature: 0.3\n")
    assert options(hot, cool).temperature == 0.3 and options(cool, hot).temperature == 0.9
    assert options("experiment", "default").temperature == 0.3


def test_a_name_is_looked_for_in_the_users_folder_first(own):
    assert find("experiment") == SHIPPED / "experiment.yaml"
    assert str(find("experiment")) != own("seed: 5\n", "experiment.yaml") == str(find("experiment"))
    assert options("experiment").seed == 5


def test_paths_are_meant_from_where_the_file_lies(tmp_path):
    path = write(tmp_path / "deep" / "a.yaml", "model: ../m.gguf\npersonality: ./ada.yaml\n")
    assert (options(path).model, options(path).personality) == (tmp_path / "deep" / ".." / "m.gguf", str(tmp_path / "deep" / "ada.yaml"))
    path = write(tmp_path / "b.yaml", "model: fake:script=s.yaml\npersonality: gary\n")
    assert (options(path).model, options(path).personality) == (Path(f"fake:script={tmp_path}/s.yaml"), "gary")
    assert options(write(tmp_path / "c.yaml", "model: fake:echo\n")).model == Path("fake:echo")


def test_who_names_a_model_anew_takes_the_other_way_of_naming_back(tmp_path):
    sized = write(tmp_path / "sized.yaml", "size: 13B\ngen: '2'\n")
    assert options(sized, model=Path("m.gguf")) == replace(ChatOptions(), model=Path("m.gguf"))
    assert options(write(tmp_path / "m.yaml", "model: /m.gguf\n"), sized) == replace(ChatOptions(), size="13B", gen="2")
    with pytest.raises(SettingsError, match="line 2: size and model both name a model"):
        options(write(tmp_path / "both.yaml", "model: a\nsize: 7B\n"))


def test_an_empty_file_says_nothing(tmp_path):
    assert options(write(tmp_path / "a.yaml", "# nothing\n")) == ChatOptions()


@pytest.mark.parametrize(
    "text, fault",
    [
        ("temprature: 1\n", "line 1: unknown key 'temprature'; did you mean 'temperature'?"),
        ("top_k: 3\nxyzzy: 1\n", "line 2: unknown key 'xyzzy'; a settings file knows model, personality"),
        ("prompt: Hi\n", "line 1: unknown key 'prompt'"),
        ("temperature: -1\n", "line 1: temperature must be a number from 0, not -1"),
        ("temperature: .nan\n", "line 1: temperature must be a number from 0, not nan"),
        ("temperature: .inf\n", "line 1: temperature must be a number from 0, not inf"),
        ("\n\ntop_p: 2\n", "line 3: top_p must be a number above 0 and up to 1, not 2"),
        ("top_p: 0\n", "line 1: top_p must be a number above 0"),
        ("temperature: hot\n", "line 1: temperature must be a number from 0, not 'hot'"),
        ("temperature: '0.5'\n", "line 1: temperature must be a number from 0, not '0.5'"),
        ("temperature: true\n", "line 1: temperature must be a number from 0, not true"),
        ("temperature: null\n", "line 1: temperature must be a number from 0, not null"),
        ("top_k: 1.5\n", "line 1: top_k must be a whole number from 0, not 1.5"),
        ("timing: 'on'\n", "line 1: timing must be true or false, not 'on'"),
        ("context: silde\n", f"line 1: context must be one of {', '.join(STRATEGIES)}, not 'silde'"),
        ("format: []\n", "line 1: format must be one of auto, alpaca_roleplay, chat_log, chat_template, not a list"),
        ("size: 7\n", "line 1: size must be a folder's name, such as 7B; put it in quotes, not 7"),
        ("eos: END\n", "line 1: eos must be a list of tokens, each in quotes, not 'END'"),
        ("eos: [2]\n", "line 1: eos must be a list of tokens"),
        ("model: ''\n", "line 1: model must be the path of a model, not ''"),
        ("seed: 1\nseed: 2\n", "line 2: 'seed' is given twice"),
        ("seed: 1\ntop_k: [1\n", "line 3: expected ',' or ']'"),
        ("seed: 1\n\ttop_k: 2\n", "line 2: found character"),
        ("- seed\n", "line 1: a settings file must be a mapping"),
        ("seed: !!python/object/apply:os.system ['true']\n", "line 1: "),
        ("seed: &a [*a]\n", "line 1: "),
        (b"personality: \xff\n", "line 1: not UTF-8"),
        ("#" * 70_000, "larger than 64 KB"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_line_and_exit_code_2(tmp_path, capfd, text, fault):
    path = write(tmp_path / "a.yaml", text)
    assert main(["settings", "-c", path]) == main(["chat", "--model", "fake:echo", "-c", path]) == 2
    out, err = capfd.readouterr()
    assert not out and [line.startswith(f"townhall: settings {path}") and fault in line for line in err.splitlines()] == [True, True], err


@pytest.mark.parametrize(
    "args, fault",
    [
        (["-c", "expermient"], "no settings are called 'expermient': did you mean 'experiment'?"),
        (["-c", "missing.yaml"], "-c missing.yaml is not a file; pass a path or one of default, experiment"),
        (["-c", "/"], "-c / is not a file"),
        (["--temperature", "-1"], "--temperature: temperature must be a number from 0, not -1.0"),
        (["--top-p", "2"], "--top-p: top_p must be a number above 0 and up to 1, not 2.0"),
    ],
)
def test_wrong_flags_are_one_sentence_too(capfd, args, fault):
    assert main(["settings", *args]) == 2
    out, err = capfd.readouterr()
    assert not out and err.startswith("townhall: ") and fault in err and len(err.splitlines()) == 1


def test_settings_shows_each_value_and_where_it_was_said(tmp_path, own, capfd):
    mine = own("\nseed: 7\n")
    assert main(["settings", "-c", "experiment", "--count", "9", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["count"] == {"value": 9, "source": "flag", "line": None}
    assert shown["seed"]["source"].endswith("experiment.yaml") and shown["top_p"]["value"] == 1.0
    assert shown["context"] == {"value": "slide", "source": "default", "line": None} and "prompt" not in shown
    assert main(["settings"]) == 0
    out, err = capfd.readouterr()
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines()}
    assert rows["seed"] == ["7", f"{mine}, line 2"] and rows["cache"] == ["true", "default"] and mine in err


def test_the_chat_does_as_a_file_says_and_flags_take_it_back(tmp_path):
    path = write(tmp_path / "a.yaml", "model: fake:echo\ntiming: true\ncount: 2\n")
    done = townhall("chat", "-c", path)
    assert done.stdout == "one two\n" and "2 tokens in" in done.stderr
    done = townhall("chat", "-c", path, "--no-timing", "--count", "3")
    assert done.stdout == "one two three\n" and "tokens in 0.00 s, " not in done.stderr and "FAKE: a scripted double" in done.stderr


def townhall(*args):
    return subprocess.run([sys.executable, "-m", "townhall", *args], input="one two three four\n", capture_output=True, text=True)


def test_a_start_without_settings_of_ones_own_does_not_import_pydantic(tmp_path):
    code = "import sys; from townhall.cli.main import main; main(['chat', '--model', 'fake:echo']); assert 'pydantic' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], input="Hi\n", capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stdout) == (0, "Hi\n"), done.stderr


def test_samplers_have_a_flag_each_as_in_llama_cpp(capfd):
    flags = (
        "--dry-multiplier 0.8 --typical 0.9 --dynatemp-exp 2 --mirostat-ent 4 --mirostat-lr 0.2 --repeat-last-n -1 --presence-penalty 0.5"
    )
    breakers = ["--dry-sequence-breaker", r"\n", "--dry-sequence-breaker", "a\\\\b", "--dry-sequence-breaker", "Ada:"]
    assert main(["settings", "--json", *flags.split(), *breakers]) == 0
    shown = json.loads(capfd.readouterr().out)
    given = {key: entry["value"] for key, entry in shown.items() if entry["source"] == "flag"}
    assert given == {
        "dry_multiplier": 0.8,
        "typical_p": 0.9,
        "dynatemp_exponent": 2.0,
        "mirostat_tau": 4.0,
        "mirostat_eta": 0.2,
        "repeat_last_n": -1,
        "presence_penalty": 0.5,
        "dry_sequence_breakers": ["\n", "a\\b", "Ada:"],
    }
    assert main(["settings", "--json", "--dry-sequence-breaker", "none"]) == 0
    assert json.loads(capfd.readouterr().out)["dry_sequence_breakers"]["value"] == []


@pytest.mark.parametrize("command", ["chat", "watch", "serve", "web", "settings"])
def test_help_stays_short_and_more_samplers_have_a_help_of_their_own(command, capfd):
    assert main([command, "--help"]) == main([command, "--help-samplers"]) == 0
    short, _, more = capfd.readouterr().out.partition("More samplers")
    assert "--help-samplers" in short and "--top-k" in short and "dry" not in short.replace("DRY", "")
    for flag in ("--dry-multiplier", "--dry-sequence-breaker", "--xtc-threshold", "--typical-p", "--mirostat-eta", "--repeat-last-n"):
        assert flag in more and flag not in short


def test_a_list_of_texts_is_read_from_a_file_and_none_of_them_is_empty(tmp_path):
    path = write(tmp_path / "a.yaml", 'dry_multiplier: 1\ndry_sequence_breakers: ["\\n", "User:"]\nmirostat: 2\n')
    assert options(path).dry_sequence_breakers == ("\n", "User:") and options(path).sampling().dry_multiplier == 1
    for text in ("[1]", "['']", "'a'", "null", "{a: b}", f"[{', '.join(['x'] * 65)}]", f"['{'x' * 101}']"):
        with pytest.raises(SettingsError, match="line 1: dry_sequence_breakers must be a list of at most 64 texts"):
            options(write(tmp_path / "b.yaml", f"dry_sequence_breakers: {text}\n"))


@pytest.mark.parametrize(
    "flags, fault",
    [
        (["--dry-base", "0.9"], "--dry-base 0.9 is out of range; pass a number from 1"),
        (["--mirostat", "3"], "--mirostat 3 is out of range; pass a whole number from 0 to 2"),
        (["--xtc-probability", "2"], "--xtc-probability 2.0 is out of range; pass a number from 0 to 1"),
        (["--frequency-penalty", "-3"], "--frequency-penalty -3.0 is out of range; pass a number from -2 to 2"),
        (["--repeat-last-n", "-2"], "--repeat-last-n -2 is out of range; pass a whole number from -1"),
        (["--dry-sequence-breaker", ""], "--dry-sequence-breaker ('',) is out of range; pass a list of at most 64 texts"),
    ],
)
def test_a_sampler_out_of_range_is_one_sentence(flags, fault, capfd):
    for command in (["chat", "--model", "fake:echo"], ["serve", "--model", "fake:echo", "--port", "0"]):
        assert main([*command, *flags]) == 2
        assert fault in capfd.readouterr().err
    assert main(["settings", *flags]) == 2 and capfd.readouterr().err.startswith(f"townhall: {flags[0]}: ")
