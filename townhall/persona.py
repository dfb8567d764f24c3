"""Personas: one YAML file each, with a name, a description, a few example exchanges, a greeting and stop strings."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from townhall.errors import PersonaError
from townhall.yaml_file import Fields, YamlFile

PERSONAS = Path(__file__).parent / "personas"
MAX_EXAMPLES = 32
MAX_STOPS = 16


@dataclass(frozen=True)
class Example:
    """An exchange the model reads before the conversation, to catch the tone and the length of an answer."""

    user: str
    reply: str


@dataclass(frozen=True)
class Persona:
    """A character: its description, examples of its answers, its greeting."""

    name: str
    description: str
    user: str = "User"
    style: str = ""
    examples: tuple[Example, ...] = ()
    greeting: str = ""
    stop: tuple[str, ...] = ()

    @property
    def instructions(self) -> str:
        """Description and style as one paragraph: the beginning of the prompt."""
        return " ".join(filter(None, (self.description, self.style)))


def list_personas() -> list[str]:
    """Names of the personas that ship with Townhall, as `--personality` takes them."""
    return sorted(path.stem for path in PERSONAS.glob("*.yaml"))


def load_persona(name_or_path: str | Path) -> Persona:
    """Read a shipped persona by name (any case) or any persona by path; PersonaError names the file, the line and the fault."""
    wanted = str(name_or_path)
    if wanted.lower() in list_personas():
        path = PERSONAS / f"{wanted.lower()}.yaml"
    elif Path(wanted).suffix in {".yaml", ".yml"} or len(Path(wanted).parts) > 1 or Path(wanted).is_file():
        path = Path(wanted)
    else:
        close = difflib.get_close_matches(wanted.lower(), list_personas(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise PersonaError(f"no persona is called {wanted!r}: {hint}{_choices()}")
    if not path.is_file():
        raise PersonaError(f"persona {path} is not a file; {_choices()}")
    return YamlFile("persona", path, PersonaError).load(_persona, _PERSONA_FIELDS, empty="it needs at least a name and a description")


def _choices() -> str:
    return f"--personality takes {', '.join(list_personas())} or the path of a YAML file"


def _persona(fields: Fields) -> Persona:
    persona = Persona(
        name=fields.label("name"),
        description=fields.text("description", required=True),
        user=fields.label("user", default="User"),
        style=fields.text("style"),
        examples=tuple(
            Example(example.text("user", required=True), example.text("reply", required=True))
            for example in fields.mappings("examples", "an example", _EXAMPLE_FIELDS, MAX_EXAMPLES)
        ),
        greeting=fields.text("greeting"),
        stop=fields.strings("stop", MAX_STOPS),
    )
    if persona.name.lower() == persona.user.lower():
        raise fields.fault("user", f"{persona.user!r} is the persona's own name; the two must differ")
    return persona


_PERSONA_FIELDS = ("name", "user", "description", "style", "examples", "greeting", "stop")
_EXAMPLE_FIELDS = ("user", "reply")
