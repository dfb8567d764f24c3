"""[NAME=]PATH[:SCALE], as flags, settings and personas have it."""

from pathlib import Path

import pytest

from townhall.adapter_spec import AdapterSpec, parse_all
from townhall.errors import ModelError, PersonaError
from townhall.persona import load_persona


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b:0.5", "x=y"):
        (tmp_path / name).mkdir()
    (tmp_path / "c.gguf").write_bytes(b"GGUF")
    return tmp_path


@pytest.mark.parametrize(
    "text, path, scale, name",
    [
        ("a", "a", 1.0, "a"),
        ("a:0.5", "a", 0.5, "a"),
        ("a:-1", "a", -1.0, "a"),
        ("c.gguf:2e-1", "c.gguf", 0.2, "c"),
        ("pirate=a:0.25", "a", 0.25, "pirate"),
        ("b:0.5", "b:0.5", 1.0, "b:0.5"),  # a path that is there wins
        ("x=y", "x=y", 1.0, "x=y"),
        ("../{folder}/a", "../{folder}/a", 1.0, "a"),
    ],
)
def test_what_a_text_means(text: str, path: str, scale: float, name: str, folder: Path) -> None:
    spec = AdapterSpec.parse(text.format(folder=folder.name))
    assert (spec.path, spec.scale, spec.name) == (Path(path.format(folder=folder.name)), scale, name)
    again = AdapterSpec.parse(str(spec))
    assert (again.path, again.scale) == (spec.path.absolute(), scale)


@pytest.mark.parametrize(
    "text, words", [("d", "d does not exist"), ("a:nan", "none"), ("a:1e9", "at most 100"), ("a:b", "a:b does not exist"), ("", "")]
)
def test_what_is_no_adapter_is_refused(text: str, words: str, folder: Path) -> None:
    if not text:
        assert parse_all(["none"]) == ()
        return
    with pytest.raises(ModelError, match=words):
        AdapterSpec.parse(text)


def test_a_persona_names_its_adapters_beside_its_file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = folder / "ann.yaml"
    file.write_text("name: Ann\ndescription: Ann is brief.\nlora: ['a:0.5', c.gguf]\n")
    assert load_persona(file).lora == (f"{folder / 'a'}:0.5", f"{folder / 'c.gguf'}:1.0")
    file.write_text("name: Ann\ndescription: Ann is brief.\nlora: [missing]\n")
    with pytest.raises(PersonaError, match=r"ann\.yaml, line 3.*missing does not exist"):
        load_persona(file)
