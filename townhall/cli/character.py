"""`townhall character`: cards come in, are looked at, edited, and go out again."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from townhall.cli import terminal
from townhall.cli.reply_report import counted

if TYPE_CHECKING:
    from townhall.characters.cards import Card
    from townhall.characters.character_folder import StoredCharacter

PATH = click.Path(path_type=Path)


def complete_characters(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names that begin so, for a shell."""
    from townhall.characters.character_folder import names

    return [name for name in names() if name.startswith(incomplete)]


name_argument = click.argument("name", metavar="NAME", shell_complete=complete_characters)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=TEXT",
    help="give a field a text instead of opening an editor; may be repeated, and for a list (alternate_greetings, tags) each adds one",
)
name_option = click.option("--name", "wanted", metavar="NAME", help="what --personality is to take  [default: of the card's name]")
replace_option = click.option("--replace", is_flag=True, help="replace what is there already")


@click.group(
    help="Character cards: Tavern V1, V2 and V3. They talk as personas do: townhall chat --personality NAME.",
    epilog="\b\nExamples:\n  townhall character import ada.png\n  townhall character list\n  townhall character export ada copy.png",
)
def character() -> None:
    pass


@character.command(
    "import",
    help="Keep a character: FILE is a card as JSON, PNG or CHARX. Nothing in it runs, and nothing is fetched.",
    epilog="Example: townhall character import ada.png --name ada",
)
@click.argument("file", type=PATH)
@name_option
@replace_option
@click.option("--strict", is_flag=True, help="refuse a card with macros that are not known, which stay as they are written")
def import_card(file: Path, wanted: str | None, replace: bool, strict: bool) -> None:
    from townhall.characters import card_files, card_knowledge, character_catalog, character_folder
    from townhall.characters.card_prompt import card_prompt, lorebook, unknown_macros
    from townhall.characters.errors import CardError

    found, where = card_files.read(file), f"card {file}"
    card = found.card
    id = character_catalog.new_id(wanted or card.name, where, "pass another name with --name")
    prompt = card_prompt(card, where, fallback=id)
    book = lorebook(card, where)
    macros = unknown_macros(card)
    if macros and strict:
        raise CardError(f"{where}: {character_catalog.macros(macros)} not known; take --strict away to keep them as they are written")
    stored = character_folder.add(card, found.portrait, id, replace, found.documents)
    terminal.say(f"{prompt.name} is here: townhall chat --personality {stored.id}\n")
    notes = [*found.notes, *character_catalog.remarks(card)] + ([f"a lorebook of {counted(len(book.entries), 'entry')}"] if book else [])
    notes += [f"{counted(len(found.documents), 'document')} that it answers from"] if found.documents else []
    for name in card_knowledge.missing(card):
        notes.append(f"it names a library {name}, which is not here; townhall library add {name} PATH makes one")
    for note in notes:
        terminal.note(note)
    if creator := _first_paragraph(card.text("creator_notes")):
        terminal.note(f"the creator's notes: {creator}")


@character.command(
    "export",
    help="Write a character to OUT. As .json it is what was imported, byte for byte; as .png it has a V2 and a V3 card in it.",
    epilog="Example: townhall character export ada ada.png",
)
@name_argument
@click.argument("out", type=PATH)
@click.option("--v3", is_flag=True, help="write JSON as V3, whatever was imported")
@replace_option
def export_card(name: str, out: Path, v3: bool, replace: bool) -> None:
    from ext.tinygrad.cache_files import written
    from townhall.characters import card_files, character_folder
    from townhall.characters.errors import CardError

    stored = character_folder.find(name)
    card = stored.card()
    if out.suffix.lower() not in (".json", ".png"):
        raise CardError(f"{out} must end in .json or .png, for that says what is written")
    if out.exists() and not replace:
        raise CardError(f"{out} is there already; pass --replace, or another name")
    if not out.parent.is_dir():
        raise CardError(f"{out.parent} is no folder; make it first")
    if out.suffix.lower() == ".png":
        content = card_files.as_png(card, portrait := stored.portrait())
        if not portrait.startswith(card_files.PNG):
            terminal.note(f"{stored.id} has no PNG as its portrait, so the picture is a plain one")
    else:
        content = card.as_v3() if v3 else card.source
    with written(out) as part:
        part.write_bytes(content)
    terminal.note(f"{out} holds {stored.id}, {len(content):,} bytes")


@character.command("list", help="Name the characters that were imported or made.", epilog="Example: townhall character list --json")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object per character")
def list_characters(as_json: bool) -> None:
    from ext.tinygrad.errors import TownhallError
    from townhall.characters import character_folder

    for name in character_folder.names():
        stored = character_folder.find(name)
        try:
            info = _info(stored, stored.card())
        except TownhallError as error:
            info = {"id": name, "fault": str(error)}
        if as_json:
            terminal.say(json.dumps(info, ensure_ascii=True) + "\n")
        else:
            terminal.say(f"{name:<20}  {info.get('fault') or _line(info)}\n")
    if not character_folder.names():
        terminal.note(f"no characters in {character_folder.default_folder()}; townhall character import FILE adds one")


@character.command("show", help="Show what a character's card says.", epilog="Example: townhall character show ada")
@name_argument
@click.option("--json", "as_json", is_flag=True, help="print the card's JSON as it is")
def show(name: str, as_json: bool) -> None:
    from townhall.characters import character_folder
    from townhall.characters.cards import LISTS, TEXTS
    from townhall.characters.character_catalog import remarks

    stored = character_folder.find(name)
    card = stored.card()
    if as_json:
        terminal.say(card.source.decode("utf-8-sig").rstrip("\n") + "\n")
        return
    info = _info(stored, card)
    terminal.say(f"{_line(info)}\nfolder: {info['folder']}\n")
    fields = {key: card.text(key) for key in TEXTS if key != "name"} | {key: "\n\n".join(card.texts(key)) for key in LISTS}
    for key in ("creator_notes", *(key for key in fields if key != "creator_notes")):
        if text := fields[key].strip():
            terminal.say(f"\n{key}:\n" + "".join(f"  {_shown(line)}\n" for line in text.splitlines()))
    for remark in remarks(card):
        terminal.note(remark)


@character.command(
    "new",
    help="Make a character, in an editor or by --set.",
    epilog='Example: townhall character new "Ada Lovelace" --set description="Ada computes."',
)
@click.argument("name", metavar="NAME")
@set_option
def new(name: str, settings: tuple[str, ...]) -> None:
    from townhall.characters import character_catalog, character_folder

    where = f"character {name}"
    id = character_catalog.new_id(name, where, "pass another name")
    card = character_catalog.blank_card(name, f"character {id}")
    card = character_catalog.edited(card, _given(settings, card), f"character {id}", id)
    stored = character_folder.add(card, b"", id)
    if not settings and sys.stdin.isatty() and sys.stdout.isatty():
        _edit_in_editor(stored, card)
    terminal.say(f"{id} is here: townhall chat --personality {id}\n")
    if not settings:
        terminal.note(f"townhall character edit {id} changes what the card says")


@character.command(
    "edit",
    help="Change a character's card, in an editor (VISUAL or EDITOR) or by --set. What is not changed stays as it is.",
    epilog="Example: townhall character edit ada --set scenario='In a library.'",
)
@name_argument
@set_option
def edit(name: str, settings: tuple[str, ...]) -> None:
    from townhall.characters import character_folder

    stored = character_folder.find(name)
    card = stored.card()
    if settings:
        _keep(stored, card, _given(settings, card))
    else:
        _edit_in_editor(stored, card)


def _edit_in_editor(stored: "StoredCharacter", card: "Card") -> None:
    """The card's texts as YAML. A text that is broken stays beside the card, and the next edit goes on with it."""
    from townhall.characters import card_yaml
    from townhall.characters.errors import CardError

    draft = stored.folder / "edit.yaml"
    if not draft.exists():
        draft.write_text(card_yaml.dump(card), encoding="utf-8")
    click.edit(filename=str(draft))
    try:
        fields = card_yaml.load(draft, card)
        _keep(stored, card, fields)
    except CardError as error:
        raise CardError(f"{error}; townhall character edit {stored.id} goes on with what you wrote") from error
    draft.unlink()


def _keep(stored: "StoredCharacter", card: "Card", fields: dict[str, Any]) -> None:
    from townhall.characters import character_folder
    from townhall.characters.character_catalog import edited

    changed = edited(card, fields, f"character {stored.id}", stored.id)
    if changed is card:
        terminal.note("nothing was changed")
        return
    character_folder.update(stored, changed)
    terminal.note(f"{stored.id}: {', '.join(fields)} changed")


def _given(settings: tuple[str, ...], card: "Card") -> dict[str, Any]:
    """The fields that --set names."""
    from townhall.characters import card_yaml
    from townhall.characters.errors import CardError
    from townhall.yaml_file import nearest

    known, fields = card_yaml.fields(card), dict[str, Any]()
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in known:
            hint = nearest(key, known, "a card has") if equals else "it takes FIELD=TEXT"
            raise CardError(f"--set {setting[:60]}: {hint}")
        if isinstance(known[key], list):
            fields.setdefault(key, []).append(text)
        else:
            fields[key] = text
    return fields


def _info(stored: "StoredCharacter", card: "Card") -> dict[str, Any]:
    from townhall.characters.character_catalog import greetings, lorebook_entries

    return {
        "id": stored.id,
        "name": card.name,
        "version": card.version,
        "creator": card.text("creator"),
        "tags": list(card.texts("tags")),
        "greetings": greetings(card),
        "lorebook_entries": lorebook_entries(card),
        "folder": str(stored.folder),
    }


def _line(info: dict[str, Any]) -> str:
    by = f" by {info['creator']}" if info["creator"] else ""
    counts = [counted(info["greetings"], "greeting")]
    counts += [f"a lorebook of {counted(info['lorebook_entries'], 'entry')}"] if info["lorebook_entries"] else []
    return _shown(f"{info['name'] or '(no name)'}{by}, card V{info['version']}, {', '.join([*counts, *info['tags']])}"[:300])


def _first_paragraph(text: str) -> str:
    return _shown(" ".join(text.strip().split("\n\n")[0].split()))[:500]


def _shown(text: str) -> str:
    from townhall.logbook.log_reader import printable

    return printable(text)
