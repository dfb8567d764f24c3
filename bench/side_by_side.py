"""Conversations side by side on one model: the next token of each is computed in one pass, as the server does it.

Each conversation runs in a thread of its own. One thread at a time has the model; it waits before each token until all others wait for
theirs, and the last one to come has all of them computed. A reply does not depend on its neighbours.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from app.models.llama import Llama
from townhall.logbook.recording_model import WatchedModel

ROWS = 16  # tokens of a pass at least, also for few seats: an answer that is scored aside is read in one
Aside = Callable[[list[int], Any], None]  # what is to be done with a prompt and the cache that holds all of it but the last id


class SideBySide:
    """Where conversations meet. `seats` is how many there are at most at a time."""

    def __init__(self, llama: Llama, seats: int):
        llama.share_passes(max(seats, ROWS))
        self.llama, self.seats = llama, seats
        self._turn = threading.Condition()
        self._talking, self._waiting, self._rounds = 0, dict[int, Any](), 0

    def run(self, talks: Sequence[Callable[["SeatedModel"], Any]]) -> list[Any]:
        """What each of `talks` gives, called with a model of its own; an exception of one of them is raised at the end."""
        results: list[Any] = [None] * len(talks)
        errors: list[BaseException] = []
        left = iter(enumerate(talks))

        def seat(number: int) -> None:
            with self._turn:
                try:
                    for at, talk in left:
                        results[at] = talk(SeatedModel(self, number))
                except BaseException as error:
                    errors.append(error)
                finally:
                    self._talking -= 1
                    self._compute()

        self._talking = min(self.seats, len(talks))
        threads = [threading.Thread(target=seat, args=(number,), daemon=True) for number in range(self._talking)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return results

    def token(self, seat: int, upcoming: Any) -> None:
        """Wait until the next token's pass has been run with those of all others; the caller has the model."""
        self._waiting[seat] = upcoming
        now = self._rounds
        self._compute()
        while self._rounds == now:
            self._turn.wait()

    def _compute(self) -> None:
        """One pass for all that wait, once no other is about to."""
        if not self._waiting or len(self._waiting) < self._talking:
            return
        wanted = [upcoming for upcoming in self._waiting.values() if upcoming is not None]
        if len(wanted) > 1:
            self.llama.compute_ahead(wanted)
        self._waiting.clear()
        self._rounds += 1
        self._turn.notify_all()


class SeatedModel(WatchedModel):
    """The model as one conversation has it. With `aside`, a reply is not made: its prompt is read and handed over."""

    def __init__(self, beside: SideBySide, seat: int):
        super().__init__(beside.llama)
        self._beside, self._seat = beside, seat
        self.aside: Aside | None = None

    def generate(
        self, ids: list[int], max_tokens: int, sampling: Any = None, cache: Any = None, stop_ids: frozenset[int] | None = None
    ) -> Any:
        if self.aside:
            return AsideStream(ids, cache, self.aside)
        generation = self._llama.generate(ids, max_tokens, sampling, cache=cache, stop_ids=stop_ids)
        return SeatedStream(self._beside, self._seat, generation)


class SeatedStream(Iterator[int]):
    """Ids, each after its pass has been run with those of the others."""

    def __init__(self, beside: SideBySide, seat: int, generation: Any):
        self._beside, self._seat, self._generation = beside, seat, generation

    def __next__(self) -> int:
        self._beside.token(self._seat, self._generation.upcoming)
        return int(next(self._generation))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generation, name)


class AsideStream(Iterator[int]):
    """No ids at all."""

    finish_reason, cached_tokens, upcoming = "stop", 0, None
    prefill_seconds = decode_seconds = shared_seconds = 0.0

    def __init__(self, ids: list[int], cache: Any, aside: Aside):
        self._ids, self._cache, self._aside = ids, cache, aside

    def __next__(self) -> int:
        self._aside(self._ids, self._cache)
        raise StopIteration

    def force(self, ids: Sequence[int]) -> None:
        """Nothing comes."""

    def close(self) -> None:
        """Nothing was begun."""
