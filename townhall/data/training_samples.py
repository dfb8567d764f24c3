"""Conversations as a model reads them: ids by its chat template or a persona's format; replies and what closes them are learnt."""

from collections.abc import Sequence

from app.models.llama.training.samples import Sample
from townhall.data.training_chats import TrainingChat
from townhall.errors import TemplateError
from townhall.language_model import TextTokenizer
from townhall.persona import Persona
from townhall.prompt import Prompt
from townhall.template import open_format


class SampleMaker:
    """`persona`: its description and examples stand before every conversation, as when it is talked to; None: only what the data says.

    TemplateError for a format in which a conversation is not one text after another.
    """

    def __init__(self, tokenizer: TextTokenizer, persona: Persona | None = None, format: str = "auto"):
        if format == "alpaca_roleplay":
            raise TemplateError(
                "--format alpaca_roleplay is for talking: each of its prompts lays out the talk anew; train with auto or chat_log"
            )
        self._tokenizer, self._persona, self._format = tokenizer, persona, format
        self._prompts: dict[str, Prompt] = {}

    def samples(self, chats: Sequence[TrainingChat]) -> list[Sample]:
        return [self.sample(chat) for chat in chats]

    def sample(self, chat: TrainingChat) -> Sample:
        if chat.text:
            ids = [*self._tokenizer.encode(chat.text, special=False), *self._end()]
            return Sample(tuple(ids), (False, *[True] * (len(ids) - 1)))
        prompt = self._prompt(chat.system)
        parts: list[tuple[Sequence[int], bool]] = [(prompt.head_ids, False)]
        for turn in chat.turns:
            parts.append((prompt.turn_ids(turn.text), False) if turn.role == "user" else (prompt.reply_ids(turn.text), True))
        ids = [token for some, _ in parts for token in some]
        learnt = [learn for some, learn in parts for _ in some]
        return Sample(tuple(ids), tuple(self._sampled(prompt, ids, learnt)))

    @staticmethod
    def _sampled(prompt: Prompt, ids: Sequence[int], learnt: Sequence[bool]) -> list[bool]:
        """Of a reply, what is sampled: up to the id that ends it, where an id does; white space after it is the template's."""
        found, ended = [], False
        for token, learn in zip(ids, learnt, strict=True):
            ended = ended and learn
            found.append(learn and not ended)
            ended = ended or (learn and token in prompt.stop_ids)
        return found

    def _prompt(self, system: str) -> Prompt:
        if system not in self._prompts:
            persona = self._persona or Persona("Assistant", system)
            self._prompts[system] = Prompt(open_format(self._format, persona, self._tokenizer), self._tokenizer)
        return self._prompts[system]

    def _end(self) -> list[int]:
        """The id that ends a text."""
        end = self._tokenizer.special_ids.get(self._tokenizer.eos_token)
        return [] if end is None else [end]
