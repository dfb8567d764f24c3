"""A session at a pseudo-terminal, over replies from a list."""

import pytest
import yaml

from tests.townhall.cli.screen import Terminal


@pytest.fixture
def chat(tmp_path):
    """`townhall chat` over `replies`, with a pause of so many seconds before each word."""
    opened = []

    def open_chat(*args, replies=("Fine, thanks.",), pause=0.0, **options):
        script = tmp_path / "script.yaml"
        script.write_text(yaml.safe_dump({"replies": list(replies), "pause": pause}, allow_unicode=True, width=10_000))
        opened.append(Terminal.chat("--model", f"fake:script={script}", *args, **options))
        return opened[-1]

    yield open_chat
    for one in opened:
        one.close()
