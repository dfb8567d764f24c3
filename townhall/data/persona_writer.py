"""Questions and answers in a persona's character, by the model at hand: a beginning for those who have no conversations yet.

A small model writes much that is of no use. What fails a check is left out and counted, and the rest is a draft to be read before training.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from townhall.conversation import Conversation
from townhall.data.training_chats import Said, TrainingChat, normal
from townhall.persona import Persona
from townhall.via.answering import AnswerQuestion
from townhall.via.endpoint import RemoteEndpoint
from townhall.via.remote_model import RemoteModel

TOPICS = (
    "animals", "astronomy", "breakfast", "books", "bicycles", "cities", "clouds", "coffee", "colours", "computers", "cooking", "dreams",
    "exercise", "family", "films", "flowers", "football", "friends", "gardens", "history", "holidays", "houses", "jokes", "languages",
    "letters", "maps", "mathematics", "money", "morning", "mountains", "music", "numbers", "oceans", "painting", "paper", "phones",
    "photographs", "plants", "rain", "rivers", "school", "ships", "shoes", "sleep", "snow", "sports", "stars", "the body", "the moon",
    "the weather", "time", "tools", "trains", "trees", "winter", "work",
)  # fmt: skip
WRITER = Persona(
    "Writer",
    "You write short questions that people ask. You write one question and nothing else.",
    examples=(),
)
MIN_WORDS, MAX_WORDS = 4, 120  # of an answer
COPIED = 8  # words in a row that stand in the persona's own text
CHECKS = {
    "empty": "says nothing",
    "question": "no question was asked",
    "short": f"fewer than {MIN_WORDS} words",
    "long": f"more than {MAX_WORDS} words, or not ended",
    "markup": "holds markers of a prompt",
    "copied": "repeats the persona's text",
    "loops": "repeats itself",
    "asked before": "the same question again",
    "said before": "the same answer again",
}
Ask = Callable[[str, int], str]  # (message, seed) → reply, each in a conversation of its own


@dataclass
class PersonaWriter:
    """`question` and `answer` speak to the model: without the persona, and as it."""

    persona: Persona
    question: Ask
    answer: Ask
    left_out: Counter[str]

    @classmethod
    def over(cls, persona: Persona, ask: Callable[[Persona], Ask]) -> "PersonaWriter":
        return cls(persona, ask(WRITER), ask(persona), Counter())

    def write(self, count: int, seed: int = 0, topics: Sequence[str] = TOPICS) -> Iterator[TrainingChat]:
        """Up to `count` exchanges that pass the checks; it gives up after ten attempts for each that is wanted."""
        questions: set[str] = set()
        answers: set[str] = set()
        made = 0
        for attempt in range(10 * count):
            if made == count:
                return
            topic = topics[attempt % len(topics)]
            asked = first_line(self.question(f"Write one short question about {topic}.", seed + 2 * attempt))
            if not asked.endswith("?") or len(asked.split()) < 3:
                self.left_out["question"] += 1
                continue
            if normal(asked) in questions:
                self.left_out["asked before"] += 1
                continue
            said = self.answer(asked, seed + 2 * attempt + 1).strip()
            if fault := fault_of(said, self.persona):
                self.left_out[fault] += 1
                continue
            if normal(said) in answers:
                self.left_out["said before"] += 1
                continue
            questions.add(normal(asked))
            answers.add(normal(said))
            made += 1
            yield TrainingChat((Said("user", asked), Said("assistant", said)), source=f"{self.persona.name} {made}")


def first_line(text: str) -> str:
    """A question without what models put around it."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return re.sub(r"^(?:\d+[.)]|[-•]|question:|[AQ]:|[\"'*]|\s)+", "", lines[0], flags=re.IGNORECASE).strip("\"'*") if lines else ""


def fault_of(said: str, persona: Persona) -> str:
    """The check that an answer fails; empty where it passes all."""
    words = normal(said).split()
    if not words:
        return "empty"
    if len(words) < MIN_WORDS:
        return "short"
    if len(words) > MAX_WORDS or said[-1] not in ".!?\"')…":
        return "long"
    if re.search(r"<\|?[a-z_/]+\|?>|\[EOS\]|###|^\s*(?:user|assistant)\s*:", said, re.IGNORECASE | re.MULTILINE):
        return "markup"
    own = normal(" ".join([persona.instructions, *(example.reply for example in persona.examples)]))
    if any(" ".join(words[at : at + COPIED]) in own for at in range(len(words) - COPIED + 1)):
        return "copied"
    runs = Counter(" ".join(words[at : at + 4]) for at in range(len(words) - 3))
    return "loops" if runs and max(runs.values()) > 2 else ""


def asks(model: object, temperature: float, max_tokens: int) -> Callable[[Persona], Ask]:
    """What speaks to a loaded model, a fresh conversation each time."""
    from app.models.llama import SamplingParams

    def of(persona: Persona) -> Ask:
        conversation = Conversation(model, persona, max_tokens=max_tokens)  # type: ignore[arg-type]

        def ask(message: str, seed: int) -> str:
            conversation.reset()
            conversation.sampling = SamplingParams(temperature=temperature, seed=seed)
            return "".join(conversation.reply(message))

        return ask

    return of


def asks_elsewhere(
    endpoint: RemoteEndpoint, temperature: float, max_tokens: int, stopped: Callable[[], bool] = lambda: False
) -> Callable[[Persona], Ask]:
    """The same of a model on another server. RemoteError where it gives no answer, KeyboardInterrupt once `stopped` is true."""
    from app.models.llama.sampling_params import SamplingParams

    model = RemoteModel(endpoint)

    def of(persona: Persona) -> Ask:
        head = [{"role": "system", "content": persona.instructions}]
        for example in persona.examples:
            head += [{"role": "user", "content": example.user}, {"role": "assistant", "content": example.reply}]

        def ask(message: str, seed: int) -> str:
            sampling = SamplingParams(temperature=temperature, seed=seed)
            question = AnswerQuestion([*head, {"role": "user", "content": message}], max_tokens, sampling, persona.stop)
            answer = model.answer(question)
            try:
                for piece in answer:
                    if not piece and stopped():
                        raise KeyboardInterrupt
            finally:
                answer.close()
            return answer.text

        return ask

    return of
