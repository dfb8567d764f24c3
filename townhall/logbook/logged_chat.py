"""A logged conversation: a question is written before it is answered, the answer with its figures before it counts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.sampler_settings import RARE_DEFAULTS, worth_noting
from townhall.errors import LogError
from townhall.logbook import log_syntax, restore
from townhall.logbook.chat_record import ChatRecord, now
from townhall.logbook.chat_tree import ChatTree, TreeNode
from townhall.logbook.log_reader import Log, parse, read_log
from townhall.logbook.log_syntax import LogTurn
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
    """The log of one conversation over `model`, which must be the one that answers. Without a writer nothing is kept but the tree.

    `found` is what the file held when it was opened; the conversation is to recall it.
    """

    def __init__(
        self,
        writer: LogWriter | None,
        model: RecordedModel,
        persona: Persona,
        identity: Mapping[str, str],
        found: Log | None = None,
    ):
        self.writer, self.model, self.persona, self.identity, self.found = writer, model, persona, identity, found
        self._record = ChatRecord({"user": persona.user, "assistant": persona.name}, self._append, found.tree if found else None)
        self._before = ""  # to be written before whatever comes first
        self._waits = True  # for that
        self._beside: int | None = None  # the turn that is answered again
        self._carried: TreeNode | None = None  # the reply that is carried on
        self._given: Sequence[int] = ()  # its ids

    @property
    def id(self) -> str:
        return str(self.found.id if self.found else self.writer.head["id"] if self.writer else "")

    @property
    def path(self) -> Path:
        assert self.writer, "this chat has no file"
        return self.writer.path

    @property
    def tree(self) -> ChatTree:
        return self._record.tree

    @property
    def record(self) -> ChatRecord:
        """For what is done to the chat beside asking and answering; it comes to the disk as it is done."""
        self._waits = False
        return self._record

    @property
    def waiting(self) -> LogTurn | None:
        """The question at the path's end that has no answer."""
        return restore.split(node.turn for node in self.tree.path())[1]

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
        writer, found = LogWriter(path, head, say), None
        if writer.begun and path.stat().st_size:
            try:
                found = _same_kind(path, head)
            except LogError:
                writer.close()
                raise
        keeper = cls(writer, model, persona, identity, found)
        if found and found.turns and found.turns[-1].role == "user":
            keeper._record.undo()  # a question that was never answered is no part of the talk
        keeper._record.use(sources or {})
        keeper._before += _resumed() if found and kind == CONVERSATION else ""
        return keeper

    def carry(self, turns: str, title: str = "", settings: Mapping[str, Any] | None = None) -> None:
        """Begin this new log with turns of another one, and what that chat was set to."""
        named = log_syntax.mark("title", {"title": title}) if title else ""
        held = log_syntax.mark("set", settings) if settings else ""
        self._before = named + held + turns + self._before + (_resumed() if turns else "")
        self._record.tree = parse((log_syntax.front_matter({}) + self._before).encode(errors="replace"), Path()).tree

    def write(self) -> None:
        """Have the log on the disk before anything is said in it."""
        self._waits = False
        self._append("")

    def close(self) -> None:
        """Let others write to the file."""
        if self.writer:
            self.writer.close()

    def _append(self, text: str) -> None:
        text, self._before = self._before + text, ""
        if self._waits:
            self._before = text
        elif self.writer:
            self.writer.append(text)

    def sourced(self, sources: Mapping[str, Any]) -> None:
        """From here on the conversation has these sources."""
        self._record.use(sources)

    def asked(self, text: str, instead: int = 0, enriched: Mapping[str, str] | None = None) -> None:
        """The user's turn was taken, in the place of the last exchange where `instead` says so.

        What is asked again as it was gets another reply beside the first. What is asked otherwise stands beside the other question.
        `enriched`: the words that were typed, and those that were offered for them.
        """
        path, self._beside, self._carried = self.tree.path(), None, None
        said, waiting = restore.split(node.turn for node in path)
        if waiting and waiting.text == text and not instead:
            return
        if instead and said:
            answers = next((at for at, node in enumerate(reversed(path)) if node.turn.role == "user"), len(path))
            asked = path[: len(path) - answers]
            if said[-1][0].text == text and asked:
                self._beside = asked[-1].id
                return
            first = asked.pop() if asked else path[0]
            while asked and asked[-1].turn.role == "user" and "id" in asked[-1].facts:  # one that has no number is not joined
                first = asked.pop()
            self.record.branch(first.parent)
        self.record.say("user", text, {"at": now(), **({"enriched": dict(enriched)} if enriched else {})})

    def carries_on(self, node: TreeNode, given: Sequence[int]) -> None:
        """The reply `node` is to be carried on, from the ids `given`."""
        self._beside, self._carried, self._given = None, node, given

    @property
    def anew(self) -> bool:
        """Is there a reply already where one is being made?"""
        return self._beside is not None or self._carried is not None

    def answered(self, reply: Reply, prefill: str = "", max_tokens: int | None = None) -> None:
        """The answer stands, whole or interrupted; one that was interrupted before a word was shown is taken back with its question."""
        prefill = prefill or reply.gathered.opening
        inserted, states = [text.to_json() for text in reply.gathered.texts], reply.gathered.states
        given = list(self._given) if self._carried else []
        facts = {
            "at": now(),
            "finish_reason": reply.finish_reason,
            "prompt_tokens": reply.prompt_tokens,
            **(self._drawn_elsewhere(reply) if reply.receipt.sent else self._drawn(given)),
            "receipt": reply.receipt.to_json(),
            **({"prefill": prefill} if prefill and not given else {}),
            **({"max_tokens": max_tokens} if max_tokens is not None else {}),
            **({"reasoning": reply.reasoning} if reply.reasoning else {}),
            **({"inserted": inserted} if inserted else {}),
            **({"source_states": dict(states)} if states else {}),
        }
        never_said = reply.finish_reason == "interrupted" and not reply.text
        if never_said and self.anew:
            return
        if self._carried:
            self.record.carry_on(self._carried, reply.text, facts)
            return
        if self._beside is not None:
            self.record.branch(self._beside)
        self.record.say("assistant", reply.text, facts)
        if never_said:
            self.record.undo()

    def _drawn(self, given: list[int]) -> dict[str, Any]:
        """What it takes to have the model here say the same again."""
        run: RecordedRun = self.model.run  # type: ignore[assignment]  # there is no reply without a generation
        return {
            "sampler": run.sampling.noted(),
            "prompt_sha256": prompt_hash(run.prompt),
            "identity": dict(self.identity),
            **({"given_tokens": len(given)} if given else {}),
            "tokens": [*given, *run.ids],
        }

    def _drawn_elsewhere(self, reply: Reply) -> dict[str, Any]:
        """Who said it, which no one here can have said again."""
        sent = reply.receipt.sent
        assert sent is not None
        return {"via": {"host": sent.host, "model": sent.model}, "completion_tokens": reply.tokens}

    def undone(self, turns: int = 1) -> None:
        """The last exchanges, or a question that got no answer, were taken back."""
        self.record.undo(turns)

    def reset(self) -> None:
        """The conversation begins anew."""
        if self.writer and self.writer.begun:
            self.record.reset()
        else:
            sources, self._record.tree, self._before = self.tree.sources, ChatTree(), ""
            self._record.use(sources)


def front_matter(persona: Persona, identity: Mapping[str, str], settings: Mapping[str, Any], kind: str = CONVERSATION) -> dict[str, Any]:
    """What a new log says of itself."""
    return {
        "id": new_id(),
        **({"kind": kind} if kind != CONVERSATION else {}),
        "started": now(),
        "user": persona.user,
        "persona": persona.name,
        "weights": identity.get("model"),
        **({"adapters": identity["adapters"]} if "adapters" in identity else {}),
        "device": identity.get("device"),
        "settings": worth_noting(settings),
    }


def _resumed() -> str:
    return log_syntax.mark("resume", {"at": now()})


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
    for key, before, wanted in pairs:
        if before != wanted:
            plain = key in keys and isinstance(before, (str, int, float)) and not isinstance(before, bool)
            flag = f", or pass --{key.replace('_', '-')} {before}" if plain else ""
            raise LogError(f"log {path} holds a conversation with {key} {before}, and this one has {wanted}; name another file{flag}")
    return log
