"""`townhall discord` as people start it: flags, a token that is refused, Ctrl-C, and where the token must not be."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.townhall.discord_bot import discord_double as wire
from tests.townhall.discord_bot.discord_double import DIRECT, TOKEN, DiscordDouble
from townhall.cli.main import main
from townhall.logbook.log_reader import read_log

ROOT = Path(__file__).resolve().parents[3]
POINTED = """
import sys, logging, yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route
Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = sys.argv[1], yarl.URL(sys.argv[2])
if sys.argv[3]:
    logging.getLogger("discord").setLevel(logging.DEBUG)
from townhall.cli.main import main
sys.exit(main(sys.argv[4:]))
"""


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "token.txt"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    return file


def start(double: DiscordDouble, folder: Path, *flags: str, debug: bool = False) -> subprocess.Popen[str]:
    """The command, whose Discord is the double."""
    command = [sys.executable, "-c", POINTED, double.base, double.gateway, "yes" if debug else "", "discord", "--token-file"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    rest = [str(folder / "token.txt"), "--model", "fake:echo", "--persona", "stacy", "--log-to", str(folder / "chats"), *flags]
    return subprocess.Popen([*command, *rest], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder)


def complaint(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one sentence that the command ends with."""
    assert main(["discord", *flags]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("townhall: "), said
    return said


@pytest.mark.parametrize(
    "content, said",
    [("", "is empty"), (" \n", "is empty"), ("two words", "holds no token"), ("x" * 5000, "holds no token"), ("t\0k", "holds no token")],
)
def test_a_file_without_a_token_is_refused(tmp_path, capsys, content, said):
    file = tmp_path / "token.txt"
    file.write_text(content)
    file.chmod(0o600)
    sentence = complaint(capsys, "--token-file", str(file))
    assert said in sentence and str(file) in sentence and (not content.strip() or content not in sentence)


def test_flags_that_cannot_be_meant_are_refused(tmp_path, capsys, token_file):
    assert "cannot be read" in complaint(capsys, "--token-file", str(tmp_path / "none"))
    assert "--allow-user 'anna'" in complaint(capsys, "--token-file", str(token_file), "--allow-user", "anna")
    assert "--channels" in complaint(capsys, "--token-file", str(token_file), "--channels", "general,")
    assert "no persona" in complaint(capsys, "--token-file", str(token_file), "--persona", "nemo")


def test_without_the_package_it_says_how_to_get_it(capsys, token_file, monkeypatch):
    for name in [name for name in sys.modules if name == "discord" or name.startswith(("discord.", "townhall.discord_bot"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "discord", None)
    assert complaint(capsys, "--token-file", str(token_file)) == (
        "townhall: townhall discord needs the package discord: pip install 'townhall[discord]'\n"
    )


@pytest.mark.slow
def test_refused_token_absent_intent_and_no_network_end_with_a_sentence(tmp_path, token_file):
    async def story():
        double = await DiscordDouble(intents=~wire.MESSAGE_CONTENT).start()
        for flags, said in (((), "refuses the token in --token-file"), (("--channels", "general"), "Message Content Intent")):
            token_file.write_text("MTk.wrong.token" if not flags else TOKEN)
            process = start(double, tmp_path, *flags)
            _, errors = await asyncio.to_thread(process.communicate)
            assert process.returncode == 2 and said in errors and "Traceback" not in errors, errors
            assert TOKEN not in errors and "wrong.token" not in errors
        await double.stop()
        process = start(double, tmp_path)
        _, errors = await asyncio.to_thread(process.communicate)
        assert process.returncode == 2 and "Discord cannot be reached" in errors and "Traceback" not in errors, errors

    asyncio.run(story())


@pytest.mark.slow
def test_ctrl_c_ends_it_cleanly_and_the_token_is_nowhere(tmp_path, token_file):
    """With all that discord.py logs, a rate limit and a lost connection in it."""

    async def story():
        double = await DiscordDouble().start()
        process = start(double, tmp_path, debug=True)
        communicating = asyncio.create_task(asyncio.to_thread(process.communicate))
        await double.until(lambda: communicating.done() or double.session and len(double.session.events) > 1)
        assert not communicating.done(), communicating.result()
        double.faults.append(wire.Fault("POST", ".*/messages", 429))
        await double.say(f"my token is {TOKEN[:9]} or so", DIRECT)
        await double.until(lambda: double.said(DIRECT))
        await double.cut()
        await double.until(lambda: any(frame["op"] == wire.RESUME for frame in double.received))
        await double.say("and once more", DIRECT)
        await double.until(lambda: len(double.said(DIRECT)) == 2)
        process.send_signal(signal.SIGINT)
        out, errors = await communicating
        await double.stop()
        assert process.returncode == 0 and out == "" and "Traceback" not in errors, errors
        assert "is on Discord, in 1 servers; Ctrl-C ends it" in errors and "429" in errors
        files = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file() and path != token_file]
        spoken = [str(body) for _, _, body in double.requests]
        assert files and not [text for text in [errors, *files, *spoken] if TOKEN in text]
        (log,) = (tmp_path / "chats").glob("*.md")
        assert [turn.text for turn in read_log(log).turns][2:] == ["and once more", "and once more"]
        assert not re.search(r"interactions/\d+/\w{20}", errors)

    asyncio.run(story())
