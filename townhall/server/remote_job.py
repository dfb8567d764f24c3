"""A request that another server's model answers: the same events as a job on the engine emits, from a thread that waits for that server."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from app.models.llama.sampling_params import SamplingParams
from townhall.server.errors import APIError, as_api_error, shutting_down
from townhall.server.job import AnswerEnd, AnswerRequest, Event, Job, JobDone, JobFailed, RequestFigures, TextEvent
from townhall.via.answering import AnsweringModel, AnswerQuestion, ArrivingAnswer, Hearing, SentFigures
from townhall.via.errors import RemoteError

log = logging.getLogger("townhall.server")
MOST_AT_ONCE = 64  # answers on their way, each with a connection and two threads

Outcome = Literal["answered", "away", "failed", "cancelled"]


@dataclass(eq=False)
class RemoteJob:
    """Answers to `runs`, one after another. `local` makes the job of the local model, for a server that is away before a word has come."""

    runs: Sequence[AnswerRequest]
    question: AnswerQuestion
    emit: Callable[[Event], None]
    local: Callable[[Callable[[Event], None]], Job]
    submit: Callable[[Job], object]  # to the engine
    deadline: float = float("inf")  # by time.monotonic
    arrived: float = field(default_factory=time.monotonic)
    over: Callable[[], object] = lambda: None
    cancelled: bool = False
    done: bool = False
    outcome: Outcome = "failed"
    first_seconds: float | None = None
    decode_seconds: float = 0.0
    sent: list[SentFigures] = field(default_factory=list)
    said: tuple[ArrivingAnswer, str] | None = None  # the last answer, whole or broken off, and why it ended
    away: str = ""  # why the local model answers instead
    ends: float = float("inf")  # when it must have ended, by time.monotonic
    standing_in: Job | None = None  # that of the local model

    def cancel(self) -> None:
        """End it; what came stays."""
        self.cancelled = True
        if self.standing_in:
            self.standing_in.cancel()

    @property
    def figures(self) -> RequestFigures:
        """What it took until now: tokens are the server's count, where it gave one."""
        last = self.sent[-1] if self.sent else None
        prompt = 0 if last is None else last.sent_tokens if last.server_tokens is None else last.server_tokens
        tokens = sum(one.tokens or 0 for one in self.sent)
        return RequestFigures(prompt, 0, tokens, self.first_seconds, self.decode_seconds, (), tuple(self.sent))

    def run(self, model: AnsweringModel) -> None:
        """The thread's work."""
        try:
            for run in self.runs:
                if self._answer(model, run):
                    continue
                if self.away:
                    self._stand_in()
                return
            self.done, self.outcome = True, "answered"
            self.emit(JobDone(self.figures))
        except Exception as error:
            info = as_api_error(error)
            if info.status == 500:
                log.error("a request to another server failed", exc_info=error)
            self.emit(JobFailed(info))

    def _answer(self, model: AnsweringModel, run: AnswerRequest) -> bool:
        """Whether it came to its end. RemoteError, or APIError where it took too long."""
        answer = model.answer(replace(self.question, sampling=self._drawn(run)))
        hearing = Hearing(answer, self._stopped, lambda thoughts: self._tell(run, "", thoughts), self._note_away)
        hide = len(self.question.carried) if run.opening else 0  # of what a client sent, and has
        spaced = run.opening[-1:].isspace()
        pieces = hearing.pieces()
        try:
            for text in pieces:
                hidden, hide = min(hide, len(text)), max(0, hide - len(text))
                if news := text[hidden:].lstrip() if spaced else text[hidden:]:
                    self._tell(run, news)
                    spaced = False
                if self._stopped():
                    break
        finally:
            pieces.close()
            if hearing.finish:
                self.said = answer, hearing.finish
                self.decode_seconds += answer.seconds
                self.sent += [answer.figures] if answer.figures else []
        if self.cancelled:
            self.outcome = "cancelled"
        elif time.monotonic() > self.ends:
            raise shutting_down()
        elif time.monotonic() > self.deadline:
            raise APIError(408, "the request took longer than this server allows", code="timeout", retry_after=5)
        elif hearing.finish:
            if run.after:
                ids = run.prompt.reply_ids(answer.text)
                run.after(answer.text, ids[: len(ids) - len(run.prompt.close_ids)])
            self.emit(AnswerEnd(run.index, hearing.finish))
            return True
        return False

    def _drawn(self, run: AnswerRequest) -> SamplingParams:
        """How a run's ids are drawn, with the penalties that OpenAI's fields ask for."""
        more = run.logits_processors
        return replace(
            run.sampling,
            frequency_penalty=more.frequency_penalty or run.sampling.frequency_penalty,
            presence_penalty=more.presence_penalty or run.sampling.presence_penalty,
        )

    def _tell(self, run: AnswerRequest, text: str, thoughts: str = "") -> None:
        if self.first_seconds is None:
            self.first_seconds = time.monotonic() - self.arrived
        self.emit(TextEvent(run.index, text, reasoning=thoughts))

    def _stopped(self) -> bool:
        return self.cancelled or time.monotonic() > min(self.deadline, self.ends)

    def _note_away(self, reason: str) -> None:
        if self.sent:  # of several answers some are there: they would be of two models
            raise RemoteError(reason, away=True)
        self.away, self.outcome = reason, "away"

    def _stand_in(self) -> None:
        """Hand the request to the local model. APIError where its queue is full."""

        def emit(event: Event) -> None:
            self.emit(JobDone(replace(event.figures, away=self.away)) if isinstance(event, JobDone) else event)

        job = self.local(emit)
        self.submit(job)
        self.standing_in = job
        if self.cancelled:
            job.cancel()


class RemoteJobs:
    """Those on their way. `note` gets a sentence when the server is found away, and when it is back.

    `finished` is called with each job when it is over; where the local model stands in, that one's job is over later.
    """

    def __init__(self, model: AnsweringModel, note: Callable[[str], object], finished: Callable[[RemoteJob], object]):
        self.model, self._note, self._finished = model, note, finished
        self._threads: dict[RemoteJob, threading.Thread] = {}
        self._lock = threading.Lock()
        self._closing = self._away = False

    @property
    def active(self) -> int:
        return len(self._threads)

    def submit(self, job: RemoteJob) -> RemoteJob:
        """Have it answered; from any thread. APIError 429 where too many are under way, 503 where the server is about to end."""
        with self._lock:
            if self._closing:
                raise shutting_down()
            if len(self._threads) >= MOST_AT_ONCE:
                raise APIError(429, f"{MOST_AT_ONCE} answers are on their way already; try again later", code="queue_full", retry_after=5)
            # a daemon, so that a server which never answers cannot keep the process
            thread = threading.Thread(target=self._run, args=(job,), name="answering", daemon=True)
            self._threads[job] = thread
        thread.start()
        return job

    def drain(self, seconds: float) -> None:
        """Take no more; what has not come in `seconds` is ended with an error."""
        with self._lock:
            self._closing = True
            for job in self._threads:
                job.ends = min(job.ends, time.monotonic() + seconds)

    def join(self, seconds: float) -> None:
        """Wait for the threads to end, after `drain`."""
        ends = time.monotonic() + seconds
        for thread in list(self._threads.values()):
            thread.join(max(0.0, ends - time.monotonic()))

    def _run(self, job: RemoteJob) -> None:
        try:
            job.run(self.model)
        finally:
            with self._lock:
                del self._threads[job]
                before, self._away = self._away, job.outcome == "away" if job.outcome in ("away", "answered") else self._away
            self._finished(job)
            if self._away != before:
                self._note(f"the local model answers: {job.away}" if self._away else "the other server answers again")
