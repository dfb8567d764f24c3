"""A conversation that is kept: what was asked before it is answered, the answer with its facts before it counts as said."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from townhall.errors import LogError
from townhall.logbook import layout
from townhall.logbook.reading import read_log
from townhall.logbook.recorder import RecordedModel, Run, prompt_hash
from townhall.logbook.writer import SUFFIX, LogWriter, new_id
from townhall.persona import Persona
from townhall.reply import Reply


def default_folder() -> Path:
    """Where logs lie unless a setting says otherwise."""
    from platformdirs import user_data_dir

    return Path(user_data_dir("townhall")) / "logs"


class Keeper:
    """The log of one conversation over `model`, which must be the one that answers."""

    def __init__(self, writer: LogWriter, model: RecordedModel, persona: Persona, identity: Mapping[str, str]):
        self.writer, self.model, self.persona, self.identity = writer, model, persona, identity

    @classmethod
    def begin(
        cls,
        place: Path,
        model: RecordedModel,
        persona: Persona,
        identity: Mapping[str, str],
        settings: Mapping[str, Any],
        say: Callable[[str], None] = lambda line: None,
    ) -> "Keeper":
        """A log in the folder `place`, or the file `place`, which may be there already; nothing is made before the first turn.

        `identity` says which weights on which device, as a cache does. LogError for a file that another process writes, or that holds a
        conversation of another kind.
        """
        name = new_id()
        head = {
            "id": name,
            "started": _now(),
            "user": persona.user,
            "persona": persona.name,
            "weights": identity.get("model"),
            "device": identity.get("device"),
            "settings": dict(settings),
        }
        path = place if place.suffix == SUFFIX else place / f"{name}{SUFFIX}"
        keeper = cls(LogWriter(path, head, say), model, persona, identity)
        if keeper.writer.begun and path.stat().st_size:
            try:
                _same_kind(path, head)
            except LogError:
                keeper.writer.close()
                raise
            keeper.reset()
        return keeper

    def asked(self, text: str) -> None:
        """The user's turn was taken."""
        self.writer.append(layout.turn(self.persona.user, text, "user", {"at": _now()}))

    def answered(self, reply: Reply) -> None:
        """The answer to it stands, whole or interrupted."""
        run: Run = self.model.run  # type: ignore[assignment]  # there is no reply without a generation
        facts = {
            "at": _now(),
            "finish_reason": reply.finish_reason,
            "sampler": asdict(run.sampling),
            "prompt_tokens": reply.prompt_tokens,
            "prompt_sha256": prompt_hash(run.prompt),
            "identity": dict(self.identity),
            "receipt": reply.receipt.to_json(),
            "tokens": run.ids,
        }
        self.writer.append(layout.turn(self.persona.name, reply.text, "reply", facts))

    def reset(self) -> None:
        """The conversation begins anew."""
        if self.writer.begun:
            self.writer.append(layout.comment("reset") + "\n")


def _same_kind(path: Path, head: Mapping[str, Any]) -> None:
    """Refuse to go on with a log that could not be told apart from what is in it; LogError names the first difference."""
    old, new = read_log(path).head, dict(head)
    if not old:
        raise LogError(f"{path} does not begin as a log does; name another file")
    pairs = [(key, old.get(key), new[key]) for key in ("user", "persona")]
    pairs += [(key, (old.get("settings") or {}).get(key), value) for key, value in new["settings"].items()]
    for key, before, now in pairs:
        if before != now:
            raise LogError(f"log {path} holds a conversation with {key} {before}, and this one has {now}; name another file")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
