"""How far a persona fades over a long chat: probes asked aside, and what persona and history do for its own answers."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from app.models.llama.shared_passes import NextTokens
from bench.persona_prompts import HARD, KNOWN, PLAIN, PROBES
from bench.persona_store import HeldChats, Key
from bench.side_by_side import SeatedModel, SideBySide
from townhall import Conversation, Persona

POINTS = (1, 10, 20, 40, 80)  # turns after which probes are asked
NEUTRAL = Persona("Assistant", "You are a helpful AI assistant.")
Open = Callable[[Any, str], Conversation]


class PersonaDrift:
    """Long chats with each persona, side by side; `open` makes a persona's conversation over a model."""

    def __init__(self, beside: SideBySide, open: Open, personas: Sequence[str], seed: int, column: str, store: HeldChats):
        """What was measured is kept in `store`, under the name of `column`."""
        self._beside, self._open, self._personas, self._seed = beside, open, list(personas), seed
        self._column, self._store = column, store
        self.complete = 0  # personas whose chat has come to its end
        tokenizer = beside.llama.tokenizer
        self._answers = {name: [tokenizer.encode(fact, bos=False, special=False) for fact in KNOWN[name].facts] for name in KNOWN}

    def over(self, turns: int) -> dict[int, dict[str, Any]]:
        """By turn: mean gain in nats a token of own answers and of the others', and at how many probes an own one gains most.

        Of the personas whose chat came to its end."""
        points = [turn for turn in POINTS if turn <= turns]
        self._measured("no persona", lambda model: {0: self._probed(Conversation(model, NEUTRAL, max_tokens=8))})
        if (base := self._store.get(self._key("no persona"))) is None:
            return {}
        if left := [name for name in self._personas if self._store.get(self._key(name)) is None]:
            self._beside.run([self._measuring(name, self._long(name, turns, points)) for name in left])
        there = [name for name in self._personas if self._store.get(self._key(name)) is not None]
        self.complete = len(there)
        found = [{int(turn): np.array(rows) for turn, rows in self._store.get(self._key(name)).items()} for name in there]
        return {turn: self._figures(there, [one[turn] for one in found], np.array(base["0"])) for turn in points} if found else {}

    def _key(self, name: str) -> Key:
        return self._column, "drift", name, 0

    def _measured(self, name: str, talk: Callable[[SeatedModel], dict[int, np.ndarray]]) -> None:
        if self._store.get(self._key(name)) is None:
            self._beside.run([self._measuring(name, talk)])

    def _measuring(self, name: str, talk: Callable[[SeatedModel], dict[int, np.ndarray]]) -> Callable[[SeatedModel], None]:
        def measuring(model: SeatedModel) -> None:
            if self._store.begin():
                self._store.put(self._key(name), {str(turn): rows.tolist() for turn, rows in talk(model).items()})

        return measuring

    def _long(self, name: str, turns: int, points: Sequence[int]) -> Callable[[SeatedModel], dict[int, np.ndarray]]:
        def talk(model: SeatedModel) -> dict[int, np.ndarray]:
            rng = random.Random(f"{self._seed} drift {name}")
            asked = [rng.choice(PLAIN if rng.random() < 0.7 else HARD) for _ in range(turns)]
            conversation, found = self._open(model, name), dict[int, np.ndarray]()
            for turn, question in enumerate(asked, 1):
                conversation.sampling = replace(conversation.sampling, seed=1000 * self._seed + turn)
                for _ in conversation.reply(question):
                    pass
                if turn in points:
                    found[turn] = self._probed(conversation)
            return found

        return talk

    def _probed(self, conversation: Conversation) -> np.ndarray:
        """Mean log-probability a token of each persona's answer to each probe, (personas, probes); the conversation stands as before."""
        model, found = conversation.llama, np.zeros((len(self._answers), len(PROBES)))
        assert isinstance(model, SeatedModel)
        for at, probe in enumerate(PROBES):

            def aside(ids: list[int], cache: Any, at: int = at) -> None:
                for row, answers in enumerate(self._answers.values()):
                    found[row, at] = self._likely(ids, answers[at], cache)

            model.aside = aside
            for _ in conversation.reply(probe):
                pass
            conversation.undo()
        model.aside = None
        return found

    def _likely(self, prompt: list[int], answer: list[int], cache: Any) -> float:
        """Mean log-probability of an answer's ids after a prompt, of which the cache holds all but the last id, also afterwards."""
        engine, given, total = self._beside.llama.engine, [prompt[-1], *answer[:-1]], 0.0
        assert len(given) <= self._beside.llama.most_rows
        engine.ahead([NextTokens(cache, given, cache.model or engine.model)])
        for fed, next_id in zip(given, answer, strict=True):
            logits = engine.step(fed, cache).astype(np.float64)
            total += logits[next_id] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        cache.truncate(len(prompt) - 1)
        return total / len(answer)

    def _figures(self, personas: Sequence[str], found: Sequence[np.ndarray], base: np.ndarray) -> dict[str, Any]:
        own, others, first = [], [], 0
        for name, likely in zip(personas, found, strict=True):
            gain, at = likely - base, list(KNOWN).index(name)
            own.append(gain[at].mean())
            others.append(np.delete(gain, at, axis=0).mean())
            first += int((gain.argmax(axis=0) == at).sum())
        return {
            "own": round(float(np.mean(own)), 4),
            "others": round(float(np.mean(others)), 4),
            "first": first,
            "probes": len(found) * len(PROBES),
            "by persona": {name: round(float(value), 4) for name, value in zip(personas, own, strict=True)},
        }
