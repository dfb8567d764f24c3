"""The state of a chat session that slash commands change: persona, model, settings and log."""

import copy
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ext.tinygrad.errors import TownhallError
from townhall.cli import terminal
from townhall.cli.chat_options import ChatOptions
from townhall.cli.chat_setup import Models, Recall, nothing, open_chat_setup, speaker, turns_of, with_adapters
from townhall.cli.model_loading import Loaded, refuse_adapters
from townhall.cli.reply_report import counted
from townhall.context.source import NoteSource, PromptSources
from townhall.conversation import Conversation, Prepared
from townhall.enrich.enricher import Enricher, Enrichment, EnrichmentRequest, searching
from townhall.errors import CommandError
from townhall.language_model import Progress
from townhall.logbook import restore
from townhall.logbook.chat_record import ChatRecord
from townhall.logbook.chat_tree import ChatTree, TreeNode
from townhall.logbook.log_reader import Log
from townhall.logbook.log_writer import SUFFIX, write_whole
from townhall.logbook.logged_chat import COMPLETION, LoggedChat, default_folder, front_matter
from townhall.message import messages_of
from townhall.persona import Persona, list_personas
from townhall.via.cost_total import CostTotal

SEEDS = 1 << 63
NOTE = "author's note"


class ChatState:
    """Whatever is refused leaves everything as it was."""

    def __init__(self, options: ChatOptions, models: Models, log: Log | None = None):
        """With `log`, that one is gone on with; else `options` say where a new one is kept, and a file there is gone on with, too."""
        self.models = models
        self.prefill = ""  # what the next answer is to begin with
        self.unanswered: str | None = None  # asked, and interrupted before a word was shown
        self.laid_off: list[str] = []  # adapters that were taken off last
        self._begun = ""  # what the answer under way was made to begin with
        self._retries = 0
        self._enricher: Enricher | None = None  # made when there is first something to rewrite
        self.costs = CostTotal()  # of answers from elsewhere, in this session
        self._chat_setup = open_chat_setup(options, models, costs=self.costs)
        self._sources = self.conversation.sources
        self.chat = self._keep(log)
        self._dress()

    @property
    def options(self) -> ChatOptions:
        return self._chat_setup.options

    @property
    def persona(self) -> Persona:
        return self._chat_setup.persona

    @property
    def loaded(self) -> Loaded:
        return self._chat_setup.loaded

    @property
    def conversation(self) -> Conversation:
        return self._chat_setup.conversation

    @property
    def keeper(self) -> LoggedChat | None:
        """The log; None where none is kept."""
        return self.chat if self.chat.writer else None

    @property
    def prepared(self) -> Prepared:
        """What reading the persona took."""
        return self._chat_setup.prepared

    @property
    def folder(self) -> Path:
        """Where logs lie."""
        place = self.options.log_to
        return default_folder() if place is None else place.parent if place.suffix == SUFFIX else place

    @property
    def last_question(self) -> str:
        """What was asked last, answered or not. CommandError where nothing was."""
        if self.unanswered is not None:
            return self.unanswered
        if not self.conversation.exchanges:
            raise CommandError("nothing has been said yet")
        return self.conversation.exchanges[-1].user.text

    def ask(
        self,
        text: str,
        instead: int = 0,
        stopped: Callable[[], bool] = lambda: False,
        on_progress: Progress | None = None,
        on_reasoning: Callable[[str], None] = lambda thoughts: None,
        enriched: Mapping[str, str] | None = None,
    ) -> Generator[str, None, None]:
        """The answer to `text`, which takes the place of the last `instead` exchanges. ContextError where it cannot be asked.

        While the prompt is read, `on_progress` counts; thoughts go to `on_reasoning`; in the meantime `stopped` is asked. `enriched` is
        noted with the question: `own` words and those `offered` for them.
        """
        conversation, sampling = self.conversation, self.loaded.sampling
        self._retries = self._retries + 1 if instead else 0
        if instead and sampling is not None and sampling.seed is not None:
            sampling = replace(sampling, seed=(sampling.seed + self._retries) % SEEDS)  # another sample, and again the same next time
        conversation.sampling = sampling
        waiting = self.chat.waiting if not instead else None
        # who speaks twice is heard as once
        question = f"{waiting.text}\n\n{text}" if waiting and waiting.text != text else text
        pieces = conversation.reply(question, self.prefill, instead, stopped, on_progress, on_reasoning)
        self._begun, self.prefill, self.unanswered = self.prefill, "", text
        self.chat.sourced(conversation.sources.note(conversation.window.capacity))
        self.chat.asked(text, instead, enriched)
        return pieces

    def enrich(self, text: str, instead: int, stopped: Callable[[], bool]) -> Enrichment:
        """What the local model would have asked in the place of `text`, which is said in that of the last `instead` exchanges."""
        conversation, model = self.conversation, self.loaded.llama
        if self._enricher is None or self._enricher.llama is not model:
            self._enricher = Enricher(model, self.options.format)
        memory, exchanges = conversation.plan.memory, conversation.exchanges[: len(conversation.exchanges) - instead]
        said = [(message.role, message.text) for message in messages_of(exchanges)]
        notes = [note.text for note in memory.notes] if memory else []
        return self._enricher.enrich(EnrichmentRequest(text, said, notes, searching(conversation.sources.sources)), stopped)

    def carry_on(
        self,
        more: str = "",
        stopped: Callable[[], bool] = lambda: False,
        on_progress: Progress | None = None,
        on_reasoning: Callable[[str], None] = lambda thoughts: None,
    ) -> Generator[str, None, None]:
        """The last reply once more from its beginning, and then on, with the words `more` in between. CommandError where there is none."""
        path, conversation = self.chat.tree.path(), self.conversation
        if not path or path[-1].turn.role != "assistant":
            raise CommandError("there is no reply to carry on; /retry answers the last message")
        said, waiting = restore.split(node.turn for node in path[:-1])
        if more[:1].isalnum() and not path[-1].turn.text[-1:].isspace():
            more = f" {more}"
        ids = restore.sampled(conversation, path[-1].turn)
        given = [*(conversation.prompt.words(path[-1].turn.text) if ids is None else ids), *conversation.prompt.words(more)]
        conversation.sampling = self.loaded.sampling
        restore.bring(conversation, said)
        try:
            pieces = conversation.reply(waiting.text if waiting else "", "", 0, stopped, on_progress, on_reasoning, opening=given)
        except TownhallError:
            self._follow()
            raise
        self._begun = ""
        self.chat.sourced(conversation.sources.note(conversation.window.capacity))
        self.chat.carries_on(path[-1], given)
        return pieces

    def answered(self) -> None:
        """The answer to what was asked stands, whole or interrupted."""
        reply = self.conversation.last
        assert reply is not None
        said = bool(reply.text) or reply.finish_reason != "interrupted"
        if said:
            self.unanswered = None
        self.chat.answered(reply, self._begun, self.conversation.max_tokens)
        if not said and self.chat.anew:
            self._follow()

    def failed(self) -> None:
        """No answer came."""
        if self.chat.anew:
            self._follow()
        elif self.unanswered is not None:
            self.chat.undone()

    def change(self, act: Callable[[ChatRecord], object]) -> None:
        """Do something to the chat's tree, and bring the conversation to the path that it goes then.

        ContextError where the context strategy does not let it: then all is as before.
        """
        trial = ChatRecord(self.chat.record.names, lambda text: None, copy.deepcopy(self.chat.tree))
        act(trial)
        said, waiting = restore.split(node.turn for node in trial.tree.path())
        restore.bring(self.conversation, said)
        act(self.chat.record)
        self.unanswered = waiting.text if waiting else None

    def node(self, number: int) -> TreeNode:
        """A message by its number. CommandError where there is none."""
        node = self.chat.tree.nodes.get(number)
        if node is None or node.taken:
            raise CommandError(f"there is no message #{number}; /messages names those of this talk, /branches all")
        return node

    @property
    def note(self) -> dict[str, Any]:
        """The author's note; {} where there is none."""
        held = self.chat.tree.settings.get("note")
        return held if isinstance(held, dict) else {}

    def set_note(self, note: dict[str, Any] | None) -> None:
        """Have an author's note, or none. ContextError where the window has no room for it."""
        before = self.note
        self.conversation.use(self._with_note(note or {}))
        if (note or {}) != before:
            self.chat.record.set({"note": note})

    def _with_note(self, note: dict[str, Any]) -> PromptSources:
        try:
            source = NoteSource(NOTE, str(note["text"]), int(note["depth"]), note["role"], speaker=self.persona.name) if note else None
        except (KeyError, TypeError, ValueError):
            source = None  # a person wrote it into the log
        others = [one for one in self._sources.sources if one.name != NOTE]
        return PromptSources([*others, source], self.loaded.llama.tokenizer) if source else self._sources

    def _dress(self) -> None:
        """Give the conversation what the chat is set to: its system prompt and its note."""
        settings, conversation = self.chat.tree.settings, self.conversation
        if system := settings.get("system"):
            conversation.persona = replace(self.persona, description=str(system), style="")
        if system or self.note:
            conversation.use(self._with_note(self.note))
            self._follow(anew=True)

    def _follow(self, anew: bool = False) -> None:
        """Bring the conversation to the chat's path."""
        said, waiting = restore.split(node.turn for node in self.chat.tree.path())
        (restore.recall if anew else restore.bring)(self.conversation, said)
        self.unanswered = waiting.text if waiting else None

    def close(self) -> None:
        """Let others write to the log."""
        if self.keeper:
            self.keeper.close()

    def undo(self, turns: int) -> int:
        """Take back the last exchanges, and say how many."""
        taken = len(self.conversation.undo(turns))
        if taken:
            self.chat.undone(taken)
        self._follow()
        return taken

    def reset(self) -> None:
        """Begin anew with the same persona."""
        self.conversation.reset()
        self.unanswered = None
        self.chat.reset()

    def meet(self, name: str) -> None:
        """Begin anew with another persona, on the same model. PersonaError where there is none."""
        path = Path(name).expanduser()
        self._enter(replace(self.options, personality=name if name.lower() in list_personas() else str(path), greeting=1))

    def greet(self, number: int) -> None:
        """Begin anew with another of the persona's greetings, from 1. PersonaError where there is none."""
        self._enter(replace(self.options, greeting=number))

    def move(self, model: Path) -> bool:
        """Go on with the same words on another model; True where it had to be loaded. Raises what loading raises."""
        options = replace(self.options, model=model, size=None, gen=None)
        loaded_before = options in self.models
        if options.model_key() != self.options.model_key():
            self._enter(options, turns_of(self.conversation), carried=True)
            self.models.settle()
        return not loaded_before

    def set(self, key: str, value: Any) -> bool:
        """Change a setting of this session; True where the conversation goes on in a new log for it. Raises what the setting raises."""
        options = replace(self.options, **{key: value})
        if key == "lora" and options.fake:
            refuse_adapters(options)
        loaded = self.models.open(with_adapters(options, self.persona))  # checks how words are drawn
        if key in ("context", "format", "lora", "lorebook", "knowledge"):
            self._enter(options, turns_of(self.conversation), carried=True)
            return self.keeper is not None
        if key == "count":
            self.conversation.limit(options.count)
        self._chat_setup = replace(self._chat_setup, options=options, loaded=loaded)
        return False

    def branch(self, title: str = "") -> LoggedChat:
        """Go on in a new log, which begins with all that was said; the old one stays. CommandError where no log is kept."""
        if not self.keeper:
            raise CommandError("this session keeps no log (--no-log), so there is nothing to branch off; /save PATH writes one")
        self._enter(self.options, turns_of(self.conversation), carried=True, title=title)
        self.keeper.write()
        return self.keeper

    def save(self, path: Path | None = None) -> Path:
        """Write what was said to a log of its own, by default where logs lie; LogError where that cannot be, or something lies there."""
        chat_setup = self._chat_setup
        head = front_matter(chat_setup.persona, chat_setup.conversation.cache.identity, self.loaded.settings(self.options))
        path = path or self.folder / f"{head['id']}{SUFFIX}"
        origin, rated = self.keeper.id if self.keeper else "", restore.ratings(self.chat.tree)
        write_whole(path, head, restore.carried(chat_setup.conversation, origin, rated))
        return path

    def takes(self, log: Log) -> bool:
        """Is it another conversation than this, with something to go on from?"""
        mine = self.keeper is not None and log.id == self.keeper.id
        return not mine and log.head.get("kind") != COMPLETION and bool(restore.exchanges(restore.standing(log.events)))

    def take_up(self, log: Log) -> int:
        """Make what stands in `log` the conversation, in a new log of its own; how many exchanges that is.

        CommandError where it holds no conversation, ContextError where the context strategy does not take it.
        """
        if log.head.get("kind") == COMPLETION:
            raise CommandError(f"log {log.path} holds a text that was carried on, and no conversation")
        said = restore.exchanges(restore.standing(log.events))
        if not said:
            raise CommandError(f"log {log.path} holds no answer to go on from")
        self._enter(
            replace(self.options, personality=speaker(log) or self.options.personality, greeting=1),
            carried=True,
            recall=lambda fresh: restore.recall(fresh, said),
            rated=log.tree,
        )
        return len(said)

    def _enter(
        self,
        options: ChatOptions,
        recall: Recall = nothing,
        carried: bool = False,
        title: str = "",
        rated: ChatTree | None = None,
    ) -> None:
        """Change the scene; a new log begins, with all that was said where that is `carried` over, rated as in `rated` or this chat."""
        chat_setup = open_chat_setup(options, self.models, recall, self.costs)
        origin, held = self.chat.id, {key: value for key, value in self.chat.tree.settings.items() if key in ("note", "system")}
        self._chat_setup, self.unanswered, self._sources = chat_setup, None, chat_setup.conversation.sources
        kept, ratings = self.keeper, restore.ratings(rated or self.chat.tree)
        self.chat.close()
        self.chat = self._begin(self.folder) if kept else self._unkept()
        self.chat.carry(restore.carried(chat_setup.conversation, origin, ratings) if carried else "", title, held if carried else None)
        self._dress()

    def _unkept(self, log: Log | None = None) -> LoggedChat:
        chat_setup = self._chat_setup
        return LoggedChat(None, chat_setup.recorded, chat_setup.persona, chat_setup.conversation.cache.identity, log)

    def _keep(self, log: Log | None) -> LoggedChat:
        """The log of the session's beginning; what a file holds that is gone on with is given to the model."""
        if not self.options.log:
            if log:
                restore.recall(self.conversation, restore.exchanges(restore.standing(log.events)))
            return self._unkept(log)
        keeper = self._begin(log.path, log.head.get("settings") or {}) if log else self._begin(self.options.log_to or default_folder())
        if keeper.found:
            said = restore.exchanges(restore.standing(keeper.found.events))
            restore.recall(self.conversation, said)
            terminal.note(f"going on with {keeper.path}: {counted(len(said), 'exchange')}")
        return keeper

    def _begin(self, place: Path, settings: dict[str, Any] | None = None) -> LoggedChat:
        chat_setup = self._chat_setup
        settings = self.loaded.settings(self.options) if settings is None else settings
        conversation = chat_setup.conversation
        return LoggedChat.begin(
            place,
            chat_setup.recorded,
            chat_setup.persona,
            conversation.cache.identity,
            settings,
            terminal.complain,
            sources=conversation.sources.note(conversation.window.capacity),
        )
