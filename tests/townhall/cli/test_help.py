"""Help that answers at once, gives examples, and stands in docs/cli.md word for word; completion in the shells that people use."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from townhall.cli.main import cli, main
from townhall.cli.manual import WIDTH, manual, pages

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
PAGES = list(pages(click.Context(cli, info_name="townhall", terminal_width=WIDTH, **cli.context_settings)))
NAMES = ["tinygrad", "numpy", "jinja2", "pydantic", "sqlite3", "prompt_toolkit", "rich", "watchfiles", "starlette", "app.models.llama"]
HEAVY = f"set({NAMES}) & set(sys.modules)"


def python(code, **env):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | env)


def test_the_manual_is_the_help_of_every_command():
    info = "docs/cli.md differs from --help; write it anew with `python -m townhall.cli.manual > docs/cli.md`"
    assert (ROOT / "docs" / "cli.md").read_text() == manual(), info


@pytest.mark.parametrize("names, text", PAGES, ids=[" ".join(names) for names, _ in PAGES])
def test_what_the_manual_says_is_what_help_says(names, text, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH + 2))  # click leaves two columns free
    assert main([*names[1:], "--help"]) == 0
    assert capsys.readouterr().out.rstrip() == text.rstrip()


@pytest.mark.parametrize("names, text", PAGES, ids=[" ".join(names) for names, _ in PAGES])
def test_every_help_gives_an_example(names, text):
    assert "Example" in text and " ".join(names) in text.split("Example", 1)[1]


def test_exit_codes_are_listed():
    codes = [line.split()[0] for line in PAGES[0][1].split("Exit codes:")[1].splitlines() if line.strip()]
    assert codes == ["0", "1", "2", "130"]


def test_no_help_waits_for_anything_heavy():
    """Each page in a process of its own, which one that has imported nothing else forks."""
    code = f"""
import os, sys
from townhall.cli.main import main
for names in {[names[1:] for names, _ in PAGES]}:
    child = os.fork()
    if not child:
        status = main([*names, "--help"])
        if status or {HEAVY}:
            print(*names, status, {HEAVY}, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""
    done = python(code)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.count("Usage: ") == len(PAGES)


def test_ctrl_c_is_heard_before_the_command_line_is_there(tmp_path):
    (tmp_path / "click.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-c", "import sys; from townhall.__main__ import main; sys.exit(main())"]  # as the installed command does
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\n")


def complete(*words):
    """What the shell would be offered for the last of the words."""
    env = {"_TOWNHALL_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["townhall", *words]), "COMP_CWORD": str(len(words))}
    light = HEAVY.replace("'sqlite3', ", "")  # the index of logs is asked for their ids
    done = python(f"import sys; from townhall.cli.main import main\ntry: main()\nfinally: assert not {light}, {light}", **env)
    assert not done.stderr, done.stderr
    return [line.split(",", 1)[1] for line in done.stdout.splitlines() if line.startswith("plain,")]


def test_commands_flags_personas_settings_and_choices_are_completed():
    assert complete("ch") == ["chat", "character"] and complete("log", "s") == ["search", "show"]
    assert complete("chat", "--temp") == ["--temperature"] and complete("chat", "--context", "s") == ["slide", "shift", "summarize", "stop"]
    assert complete("chat", "--personality", "g") == ["gary", "george"] and complete("chat", "-c", "exp") == ["experiment"]


def test_logs_are_completed_by_their_ids(tmp_path):
    folder = tmp_path / "user_data" / "townhall" / "logs"
    folder.mkdir(parents=True)
    (folder / "a.md").write_text("---\nid: 2026-x\nuser: A\npersona: B\n---\n\n## A\nHi\n")
    assert complete("log", "show", "20") == ["2026-x"] == complete("replay", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_takes_what_completion_prints(shell, tmp_path, capfd):
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capfd.readouterr().out)
    assert "_TOWNHALL_COMPLETE" in script.read_text()
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    assert subprocess.run([shell, "-n", script], capture_output=True).returncode == 0


def test_bash_completes(tmp_path, capfd):
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capfd.readouterr().out)
    program = tmp_path / "townhall"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m townhall "$@"\n')
    program.chmod(0o755)
    lines = f"PATH={tmp_path}:$PATH; . {tmp_path}/script; COMP_WORDS=(townhall sett); COMP_CWORD=1; _townhall_completion townhall"
    lines += '; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "settings\n", done.stderr


def test_a_shell_that_is_not_known_is_refused(capfd):
    assert main(["completion", "tcsh"]) == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in capfd.readouterr().err
