"""Third-party files of the page and of its tests: exactly those of the manifests, each with its licence."""

import hashlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = {"page": ROOT / "townhall/web/assets/vendor", "tests": ROOT / "tests/web/vendor"}
LICENCES = {"MIT", "Apache-2.0", "BSD-3-Clause", "MPL-2.0", "MPL-2.0 OR Apache-2.0"}


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=list(FOLDERS))
def test_files_are_those_of_the_manifest(folder: Path) -> None:
    packages = json.loads((folder / "manifest.json").read_text())["packages"]
    stored = {entry["file"]: entry["sha256"] for package in packages for entry in package["files"]}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"manifest.json"}
    assert there == stored.keys()
    for name, digest in stored.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=list(FOLDERS))
def test_every_package_has_its_licence_and_an_exact_version(folder: Path) -> None:
    for package in json.loads((folder / "manifest.json").read_text())["packages"]:
        assert package["licence"] in LICENCES and package["version"][0].isdigit()
        texts = [entry["file"] for entry in package["files"] if entry["file"].startswith("licences/")]
        assert len(texts) == 1 and len((folder / texts[0]).read_text()) > 500
