"""The YAML of a swarm, and what of it each replica is started with."""

import json

import pytest

from townhall.cli.main import main
from townhall.cli.swarm import _pairs
from townhall.swarm.errors import SwarmError
from townhall.swarm.replica import open_model
from townhall.swarm.swarm_file import parse_model, read_swarm

GOOD = """\
port: 9000
grace: 30
models:
  small:
    model: fake:echo
    replicas: 1-4
    queue: 3
    slots: 2
    temperature: 0.5
    persona: [stacy, gary]
    strict_model: true
    think: false
  large: {model: fake:echo, replicas: {min: 0, max: 2}, gpus: 0.5}
"""


def read(tmp_path, text):
    path = tmp_path / "swarm.yaml"
    path.write_text(text)
    return read_swarm(path)


def test_a_file_is_read_and_each_model_is_a_server_with_those_flags(tmp_path):
    plan = read(tmp_path, GOOD)
    small, large = plan.models
    assert (plan.host, plan.port, plan.grace, plan.no_auth) == ("127.0.0.1", 9000, 30, False)
    assert (small.replicas, small.queue, small.slots, small.cpus, small.position) == ((1, 4), 3, 2, 1, 0)
    assert (large.replicas, large.gpus, large.position) == ((0, 2), 0.5, 1)
    options = open_model(small, plan.grace).options
    assert (options.model_id, options.personas, options.slots, options.grace) == ("small", ("stacy", "gary"), 2, 30)
    assert options.strict_model and options.think is False and options.log_settings["temperature"] == 0.5
    assert not options.keys and not options.hosts  # who may ask is decided in front
    json.dumps(small.described())


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", "is empty; it needs a mapping 'models'"),
        ("models: {}", "line 1: 'models' must map each model's name"),
        ("models: {small: {}}\nhots: a", "line 2: unknown key 'hots'; did you mean 'host'"),
        ("port: 70000\nmodels: {a: {}}", "'port' must be a number"),
        ("no_auth: maybe\nmodels: {a: {}}", "'no_auth' must be true or false"),
        ("models:\n  a: {}\n  b: [1]", "line 3: model b: it must be a mapping"),
        ("models:\n  a/b: {}", "line 2: model 'a/b': a name is letters"),
        ("models:\n  a: {replicas: 0}", "'replicas' must be a whole number from 1"),
        ("models:\n  a: {replicas: 4-2}", "'replicas' must be a whole number from 4"),
        ("models:\n  a: {replicas: two}", "or a range such as 1-4"),
        ("models:\n  a: {slots: 2.5}", "'slots' must be a whole number"),
        ("models:\n  a: {gpus: many}", "'gpus' must be a number"),
        ("models:\n  a: {port: 1}", "'port' is of the whole swarm"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, text, fault):
    with pytest.raises(SwarmError) as info:
        read(tmp_path, text)
    assert fault in str(info.value) and "swarm.yaml" in str(info.value)


@pytest.mark.parametrize(
    "values, fault",
    [
        ({"temprature": 1}, "model m: No such option.*--temprature"),
        ({"temperature": "hot"}, "model m: .*--temperature"),
        ({"model": "nowhere.gguf"}, "nowhere.gguf"),
        ({"model": "fake:echo", "persona": "stacey"}, "did you mean stacy"),
    ],
)
def test_flags_are_checked_as_those_of_a_server(values, fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from ext.tinygrad.errors import TownhallError

    with pytest.raises(TownhallError, match=fault):
        open_model(parse_model("m", values), 1.0)


def test_pairs_of_the_command_line_are_values_of_yaml():
    assert _pairs(["replicas=1-4", "think=false", "lora=a=b", "max-context=9", "persona=[stacy, gary]"]) == {
        "replicas": "1-4",
        "think": False,
        "lora": "a=b",
        "max_context": 9,
        "persona": ["stacy", "gary"],
    }
    for wrong in (["replicas"], ["=3"], ["a=[1"]):
        with pytest.raises(SwarmError):
            _pairs(wrong)


@pytest.mark.parametrize("command", [["status"], ["remove", "a"], ["add", "a", "model=fake:echo"], ["down"]])
def test_commands_without_a_swarm_say_how_one_is_started(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["swarm", *command]) == 2
    said = capsys.readouterr().err
    assert "`townhall swarm up` starts one" in said or "pip install 'townhall[swarm]'" in said
