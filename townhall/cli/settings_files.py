"""Settings from files and flags: defaults, the user's own file, files named with -c, flags; each wins over those before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from townhall.cli.chat_options import as_word
from townhall.errors import SettingsError
from townhall.yaml_file import MAX_BYTES, Fields, YamlFile, nearest

SHIPPED = Path(__file__).parents[1] / "config"
DEFAULT = SHIPPED / "default.yaml"
SUFFIXES = (".yaml", ".yml")
OWN = "settings.yaml"  # in the user's folder
# --model names a file, --size and --gen a folder: who says one of them anew takes the others back
EXCLUSIVE = (("model",), ("size", "gen"))
PATHS = ("model", "log_to", "personality")


@dataclass(frozen=True)
class Setting:
    """A value and where it came from: "default", "flag", or a file and its line."""

    value: Any
    source: str = "default"
    line: int | None = None

    @property
    def origin(self) -> str:
        """For a person."""
        return f"{self.source}, line {self.line}" if self.line else self.source


def user_folder() -> Path:
    """Where the user's own settings lie."""
    from platformdirs import user_config_dir

    return Path(user_config_dir("townhall"))


def resolve(
    defaults: Mapping[str, Any],
    names: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    document: Mapping[str, Setting] | None = None,
) -> dict[str, Setting]:
    """The value of every key of `defaults`. SettingsError names the file, its line, the fault and the mend.

    `names` are what -c takes, in order; `flags` are only those that were given; `document` is what a watched file says of itself.
    """
    result = {key: Setting(value) for key, value in defaults.items()}
    # the file of defaults counts only where it was changed
    base = read_settings(DEFAULT, defaults)
    _lay(result, {key: setting for key, setting in base.items() if setting.value != defaults[key]})
    own = user_folder() / OWN
    for path in [*([own] if own.is_file() else []), *map(find, names)]:
        _lay(result, read_settings(path, defaults))
    _lay(result, document or {})
    _lay(result, {key: Setting(value, "flag") for key, value in (flags or {}).items()})
    return result


def read_settings(path: Path, defaults: Mapping[str, Any]) -> dict[str, Setting]:
    """What one file sets, checked; a key that says what `defaults` says is not checked again."""
    known = [key for key in defaults if key not in ("prompt", "json")]
    return YamlFile("settings", path, SettingsError).load(lambda fields: _checked(fields, path, defaults), known, "a settings file")


def read_front_matter(path: Path, text: str, defaults: Mapping[str, Any], known: Sequence[str]) -> dict[str, Setting]:
    """What `text` on top of the file at `path` sets, of the keys `known`, checked as a settings file is."""
    if len(text) > MAX_BYTES:
        raise SettingsError(f"settings on top of {path} are larger than {MAX_BYTES // 1024} KB; they are a few lines of text")
    file = YamlFile("settings on top of", path, SettingsError)
    return file.load(lambda fields: _checked(fields, path, defaults), known, "a conversation's file", text=text)


def find(name: str) -> Path:
    """The file that -c NAME or -c PATH means: a path, a file of the user's folder, or one that ships."""
    given = Path(name).expanduser()
    if given.suffix in SUFFIXES or len(given.parts) > 1 or given.is_absolute():
        if not given.is_file():
            raise SettingsError(f"-c {name} is not a file; pass a path or one of {', '.join(list_settings())}")
        return given
    for folder in (user_folder(), SHIPPED):
        for suffix in SUFFIXES:
            if (path := folder / f"{name}{suffix}").is_file():
                return path
    raise SettingsError(f"no settings are called {name!r}: {nearest(name, list_settings(), '-c takes a path or')}")


def list_settings() -> list[str]:
    """Names that -c takes."""
    files = [path for folder in (user_folder(), SHIPPED) if folder.is_dir() for path in folder.iterdir()]
    return sorted({path.stem for path in files if path.suffix in SUFFIXES})


def _checked(fields: Fields, path: Path, defaults: Mapping[str, Any]) -> dict[str, Setting]:
    values = {key: as_word(key, fields.plain(key)) for key in fields.values}
    new = {key: value for key, value in values.items() if type(value) is not type(defaults[key]) or value != defaults[key]}
    if new:
        from townhall.cli import settings_schema

        if found := settings_schema.fault(new):
            raise fields.fault(*found)
    for group in EXCLUSIVE[1:]:
        if values.get(EXCLUSIVE[0][0]) and (both := [key for key in group if values.get(key)]):
            raise fields.fault(both[0], f"{both[0]} and {EXCLUSIVE[0][0]} both name a model; leave one of them out")
    return {key: Setting(_placed(key, value, path), str(path), fields.line(key)) for key, value in values.items()}


def _placed(key: str, value: Any, path: Path) -> Any:
    """Paths in a file are meant from where the file lies."""
    if isinstance(value, list):
        return tuple(value)
    if key not in PATHS or value is None:
        return value
    if key == "personality":
        named = Path(value).suffix not in SUFFIXES and len(Path(value).parts) < 2
        return value if named else str(path.parent / Path(value).expanduser())
    fake, script, rest = value.rpartition("fake:script=")
    if rest.startswith("fake:"):
        return Path(rest)
    return Path(f"{fake}{script}{path.parent / Path(rest).expanduser()}")


def _lay(result: dict[str, Setting], layer: Mapping[str, Setting]) -> None:
    for mine, theirs in (EXCLUSIVE, EXCLUSIVE[::-1]):
        if any(layer[key].value for key in mine if key in layer):
            result.update({key: Setting(None) for key in theirs if key not in layer})
    result.update(layer)
