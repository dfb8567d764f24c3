"""What a clone is set up from: two lists of the same pins, targets that exist, data that travels with the package."""

import os
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_requirements_txt_repeats_the_dependencies_of_pyproject():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == PROJECT["project"]["dependencies"]


def test_every_dependency_is_pinned():
    extras = PROJECT["project"]["optional-dependencies"]
    assert extras["web"] == ["townhall[server]"]  # another name for the same
    for requirement in PROJECT["project"]["dependencies"] + sum(extras.values(), []):
        assert requirement == "townhall[server]" or re.match(r"[a-z0-9._-]+(\[[a-z]+\])?==[0-9]", requirement), requirement


def test_the_make_targets_that_people_know_exist():
    text = (ROOT / "Makefile").read_text()
    for target in ("setup", "chat", "test", "test-web", "check", "bench"):
        assert re.search(rf"^{target}:", text, re.MULTILINE)


def test_ci_runs_what_developers_run_and_nothing_else():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test", "make test-web"]
    assert "set -euo pipefail" in script.read_text()  # the first that fails, fails the run


def test_the_browser_comes_from_the_system_and_never_from_a_place_of_its_own():
    script = (ROOT / "tests/web/chromium.sh").read_text()
    assert not re.search(r"^[^#]*playwright install", script + (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert os.access(ROOT / "tests/web/chromium.sh", os.X_OK)


def test_every_kind_of_data_file_in_the_packages_is_packaged():
    patterns = {pattern.removeprefix("*") for pattern in PROJECT["tool"]["setuptools"]["package-data"]["*"]}
    left_out = {".py", ".pyc", ".pth", ".gguf", ".safetensors", ".part", ""}  # code, and weights, which are pulled
    for package in ("ext", "app", "townhall"):
        files = [path for path in (ROOT / package).rglob("*") if path.is_file() and "weights" not in path.parts]
        assert {path.suffix for path in files} - left_out <= patterns
