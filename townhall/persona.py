"""Personas: a YAML file each, with a name, a description, a few example exchanges, a greeting and stop strings; or a character card."""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from townhall.adapter_spec import parse_all
from townhall.errors import ModelError, PersonaError
from townhall.yaml_file import Fields, YamlFile

if TYPE_CHECKING:
    from townhall.characters.cards import Card

PERSONAS = Path(__file__).parent / "personas"
CARD_SUFFIXES = {".json", ".png", ".charx"}
MAX_EXAMPLES = 32
MAX_STOPS = 16
MAX_SOURCES = 16  # libraries, or lorebooks
MAX_ADAPTERS = 8


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
    post_history_instructions: str = ""  # stand behind the conversation in every prompt
    reminder: str = ""  # stands in front of the newest message's words in every prompt after the first
    knowledge: tuple[str, ...] = ()  # libraries by name, and folders or files that are made one
    lorebooks: tuple[Path, ...] = ()
    # of character cards
    alternate_greetings: tuple[str, ...] = ()
    card: Path | None = None  # the file, in which the lorebook is
    lora: tuple[str, ...] = ()  # adapters that it speaks through, as --lora takes them, paths whole

    @property
    def greetings(self) -> tuple[str, ...]:
        """All that it may begin with."""
        return tuple(filter(None, (self.greeting, *self.alternate_greetings)))

    def greeted(self, number: int) -> "Persona":
        """The persona that begins with its greeting `number`, from 1. PersonaError where it has no such one."""
        greetings = self.greetings
        if not 1 <= number <= max(1, len(greetings)):
            has = f"{len(greetings)} greetings" if len(greetings) > 1 else "one greeting" if greetings else "no greeting"
            raise PersonaError(f"--greeting {number}: {self.name} has {has}; pass a number from 1 to {max(1, len(greetings))}")
        others = (*greetings[: number - 1], *greetings[number:])
        return replace(self, greeting=greetings[number - 1], alternate_greetings=others) if greetings else self

    @property
    def instructions(self) -> str:
        """Description and style as one paragraph: the beginning of the prompt."""
        return " ".join(filter(None, (self.description, self.style)))


def list_personas() -> list[str]:
    """What `--personality` takes: the personas that ship with Townhall, then the user's characters."""
    from townhall.characters import character_folder

    shipped = shipped_personas()
    return [*shipped, *(name for name in character_folder.names() if name not in shipped)]


def shipped_personas() -> list[str]:
    """Names of the personas that ship with Townhall."""
    return sorted(path.stem for path in PERSONAS.glob("*.yaml"))


def load_persona(name_or_path: str | Path) -> Persona:
    """Read a persona or character by name (any case), or any by path; PersonaError names the file, the line and the fault."""
    wanted = str(name_or_path)
    if wanted.lower() in shipped_personas():
        path = PERSONAS / f"{wanted.lower()}.yaml"
    elif wanted.lower() in list_personas():
        return _from_character(wanted)
    elif Path(wanted).suffix.lower() in CARD_SUFFIXES:
        return _from_card_file(Path(wanted))
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
    return f"--personality takes {', '.join(list_personas())} or the path of a YAML file or a character card"


def _from_character(name: str) -> Persona:
    from townhall.characters import character_folder

    stored = character_folder.find(name)
    return _from_card(stored.card(), f"character {stored.id}", stored.id, stored.card_path, stored.documents)


def _from_card_file(path: Path) -> Persona:
    from townhall.characters import card_files

    return _from_card(card_files.read(path).card, f"card {path}", path.stem, path)


def _from_card(card: "Card", where: str, fallback: str, path: Path, documents: Path | None = None) -> Persona:
    from townhall.characters.card_knowledge import there
    from townhall.characters.card_prompt import card_prompt

    prompt = card_prompt(card, where, fallback=fallback)
    return Persona(
        name=prompt.name,
        description=prompt.instructions,
        user=prompt.user,
        examples=tuple(Example(user, reply) for user, reply in prompt.examples),
        greeting=prompt.greetings[0] if prompt.greetings else "",
        alternate_greetings=prompt.greetings[1:],
        post_history_instructions=prompt.post_history_instructions,
        card=path,
        knowledge=there(card, documents),
    )


def _place(name: str, folder: Path) -> str:
    """A library's name as it is; a path as seen from the persona's file."""
    return str(folder / Path(name).expanduser()) if "/" in name or name.startswith("~") else name


def _persona(fields: Fields) -> Persona:
    folder = fields.file.path.parent
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
        post_history_instructions=fields.text("post_history_instructions"),
        reminder=fields.text("reminder"),
        knowledge=tuple(_place(name, folder) for name in fields.strings("knowledge", MAX_SOURCES)),
        lorebooks=tuple(folder / Path(name).expanduser() for name in fields.strings("lorebooks", MAX_SOURCES)),
        lora=_adapters(fields, folder),
    )
    if persona.name.lower() == persona.user.lower():
        raise fields.fault("user", f"{persona.user!r} is the persona's own name; the two must differ")
    return persona


def _adapters(fields: Fields, folder: Path) -> tuple[str, ...]:
    try:
        return tuple(map(str, parse_all(fields.strings("lora", MAX_ADAPTERS), "adapter", folder)))
    except ModelError as error:
        raise fields.fault("lora", str(error)) from error


_SOURCES = ("post_history_instructions", "reminder", "knowledge", "lorebooks")
_PERSONA_FIELDS = ("name", "user", "description", "style", "examples", "greeting", "stop", *_SOURCES, "lora")
_EXAMPLE_FIELDS = ("user", "reply")
