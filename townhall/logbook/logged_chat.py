"""A logged conversation: a question is written before it is answered, the answer with its figures before it counts."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.sampler_settings import RARE_DEFAULTS, worth_noting
from townhall.errors import LogError
from townhall.logbook import log_syntax
from townhall.logbook.log_reader import Log, read_log
from townhall.logbook.log_writer import SUFFIX, LogWriter, new_id
from townhall.logbook.recording_model import RecordedModel, RecordedRun, prompt_hash
from townhall.persona import Persona
from townhall.reply import Reply

CONVERSATION, COMPLETION = "conversation", "completion"  # kinds of a log; the second is a text carried on


def default_folder() -> Path:
    """Where logs lie unless a setting says otherwise."""
    from platformdirs import user_data_dir

    return Path(user_data_dir("townhall")) / "logs"


class LoggedChat:
    """The log of one conversation over `model`, which must be the one that answers.

    `found` is what the file held when it was opened; the conversation is to recall it.
    """

    def __init__(self, writer: LogWriter, model: RecordedModel, persona: Persona, identity: Mapping[str, str]):
        self.writer, self.model, self.persona, self.identity = writer, model, persona, identity
        self.found: Log | None = None
        self._before = ""  # to be written before whatever comes first
        self._sources: Mapping[str, Any] = {}  # as the log has them

    @property
    def id(self) -> str:
        return str(self.found.id if self.found else self.writer.head["id"])

    @property
    def path(self) -> Path:
        return self.writer.path

    @classmethod
    def begin(
        cls,
        place: Path,
        model: RecordedModel,
        persona: Persona,
        identity: Mapping[str, str],
        settings: Mapping[str, Any],
        say: Callable[[str], None] = lambda line: None,
        kind: str = CONVERSATION,
        sources: Mapping[str, Any] | None = None,
    ) -> "LoggedChat":
        """A log in the folder `place`, or the file `place`, which may be there already; nothing is written before the first turn.

        `identity` says which weights on which device, as a cache does; `sources` is their note (`PromptSources.note`). LogError for a file
        that another process writes, or that holds a conversation of another kind.
        """
        head = front_matter(persona, identity, settings, kind)
        path = place if place.suffix == SUFFIX else place / f"{head['id']}{SUFFIX}"
        keeper = cls(LogWriter(path, head, say), model, persona, identity)
        if keeper.writer.begun and path.stat().st_size:
            try:
                keeper.found = _same_kind(path, head)
            except LogError:
                keeper.close()
                raise
            turns = keeper.found.turns
            # a question that was never answered is no part of the talk
            unanswered = log_syntax.comment("undo", {"turns": 1}) + "\n" if turns and turns[-1].role == "user" else ""
            keeper._sources = keeper.found.sources
            keeper._before = unanswered + keeper._changed(sources or {}) + (_resumed() if kind == CONVERSATION else "")
        else:
            keeper._before = keeper._changed(sources or {})
        return keeper

    def carry(self, turns: str, title: str = "") -> None:
        """Begin this new log with turns of another one."""
        named = log_syntax.comment("title", {"title": title}) + "\n" if title else ""
        self._before = named + turns + self._before + (_resumed() if turns else "")

    def write(self) -> None:
        """Have the log on the disk before anything is said in it."""
        self._append("")

    def close(self) -> None:
        """Let others write to the file."""
        self.writer.close()

    def _append(self, text: str) -> None:
        before, self._before = self._before, ""
        self.writer.append(before + text)

    def sourced(self, sources: Mapping[str, Any]) -> None:
        """From here on the conversation has these sources."""
        if changed := self._changed(sources):
            if self.writer.begun:
                self._append(changed)
            else:
                self._before += changed

    def _changed(self, sources: Mapping[str, Any]) -> str:
        """The comment that says so, "" where they are as the log has them."""
        if sources == self._sources:
            return ""
        self._sources = sources
        return log_syntax.comment("sources", sources) + "\n"

    def asked(self, text: str, instead: int = 0) -> None:
        """The user's turn was taken, in the place of the last `instead` exchanges."""
        undo = log_syntax.comment("undo", {"turns": instead}) + "\n" if instead else ""
        self._append(undo + log_syntax.turn(self.persona.user, text, "user", {"at": _now()}))

    def answered(self, reply: Reply, prefill: str = "", max_tokens: int | None = None) -> None:
        """The answer to it stands, whole or interrupted; what was interrupted before a word was shown is taken back."""
        run: RecordedRun = self.model.run  # type: ignore[assignment]  # there is no reply without a generation
        prefill = prefill or reply.gathered.opening
        inserted, states = [text.to_json() for text in reply.gathered.texts], reply.gathered.states
        facts = {
            "at": _now(),
            "finish_reason": reply.finish_reason,
            "sampler": run.sampling.noted(),
            "prompt_tokens": reply.prompt_tokens,
            "prompt_sha256": prompt_hash(run.prompt),
            "identity": dict(self.identity),
            "receipt": reply.receipt.to_json(),
            **({"prefill": prefill} if prefill else {}),
            **({"max_tokens": max_tokens} if max_tokens is not None else {}),
            **({"reasoning": reply.reasoning} if reply.reasoning else {}),
            **({"inserted": inserted} if inserted else {}),
            **({"source_states": dict(states)} if states else {}),
            "tokens": run.ids,
        }
        never_said = reply.finish_reason == "interrupted" and not reply.text
        undo = log_syntax.comment("undo", {"turns": 1}) + "\n" if never_said else ""
        self._append(log_syntax.turn(self.persona.name, reply.text, "reply", facts) + undo)

    def undone(self, turns: int = 1) -> None:
        """The last exchanges, or a question that got no answer, were taken back."""
        self._append(log_syntax.comment("undo", {"turns": turns}) + "\n")

    def reset(self) -> None:
        """The conversation begins anew."""
        if self.writer.begun:
            self._append(log_syntax.comment("reset") + "\n")
        else:
            self._before = log_syntax.comment("sources", self._sources) + "\n" if self._sources else ""


def front_matter(persona: Persona, identity: Mapping[str, str], settings: Mapping[str, Any], kind: str = CONVERSATION) -> dict[str, Any]:
    """What a new log says of itself."""
    return {
        "id": new_id(),
        **({"kind": kind} if kind != CONVERSATION else {}),
        "started": _now(),
        "user": persona.user,
        "persona": persona.name,
        "weights": identity.get("model"),
        **({"adapters": identity["adapters"]} if "adapters" in identity else {}),
        "device": identity.get("device"),
        "settings": worth_noting(settings),
    }


def _resumed() -> str:
    return log_syntax.comment("resume", {"at": _now()}) + "\n"


def _same_kind(path: Path, head: Mapping[str, Any]) -> Log:
    """The log at `path`, which `head` could stand on too; LogError names the first difference."""
    log, new = read_log(path), dict(head)
    old = log.head
    if not old:
        raise LogError(f"{path} does not begin as a log does; name another file")
    pairs = [(key, old.get(key), new.get(key)) for key in ("user", "persona", "kind", "adapters")]
    held, said = old.get("settings") or {}, new["settings"]
    keys = [*said, "lora", *(key for key in held if key in RARE_DEFAULTS and key not in said)]
    pairs += [(key, held.get(key, RARE_DEFAULTS.get(key)), said.get(key, RARE_DEFAULTS.get(key))) for key in keys]
    for key, before, now in pairs:
        if before != now:
            raise LogError(f"log {path} holds a conversation with {key} {before}, and this one has {now}; name another file")
    return log


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
