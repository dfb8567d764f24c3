"""Damaged and crafted files by the hundred, in a process of its own whose memory is capped: bench/fuzz.py runs them by the thousand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TARGETS = """gguf_header gguf_metadata split safetensors_header torch_pickle torch_archive index config_json family_config family_gguf
params_json tokenizer_json tokenizer_model tokenizer_folder chat_template
adapter_config adapter_tensors adapter_gguf adapter_mlx name_pattern card_json card_png card_charx
api_request thoughts stored_entries""".split()
CASES = 40


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, int]]:
    command = [sys.executable, "-m", "tests.reference.fuzz", "all", str(CASES), "0"]
    done = subprocess.run(command, cwd=Path(__file__).parents[4], capture_output=True, text=True, timeout=240)
    print(done.stderr[-6000:])  # the case that failed, and where
    return {outcome["target"]: outcome for outcome in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("target", TARGETS)
def test_every_case_opens_or_ends_in_a_typed_sentence(target: str, outcomes: dict[str, dict[str, int]]) -> None:
    assert target in outcomes, "a case before or of this target raised something else; see the output captured above"
    # hypothesis ends early only where it has tried everything there is
    assert outcomes[target]["cases"] >= CASES and outcomes[target]["refused"] > 0


def test_no_target_is_left_out() -> None:
    from tests.reference.fuzz import TARGETS as known

    assert list(known) == TARGETS
