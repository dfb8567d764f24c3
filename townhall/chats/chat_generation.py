"""A reply that is being written for a chat: the job on the engine, what came of it so far, and how it is kept."""

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from townhall.answer import Answer
from townhall.logbook.chat_record import ChatRecord, now
from townhall.logbook.chat_tree import TreeNode
from townhall.reply import citing
from townhall.server.errors import APIError
from townhall.server.job import AnswerRequest, Job
from townhall.server.model_lease import ModelLease
from townhall.server.planned_request import PlannedRequest
from townhall.server.remote_job import RemoteJob
from townhall.server.service import Service
from townhall.via.answering import SentFigures

JSON = dict[str, Any]
Kind = Literal["reply", "continue", "impersonate"]
OVER = object()  # in the queue of a job's events: nothing more comes
NOT_KEPT = {"prompt_sha256", "dropped", "device", "persona", "prompt_tokens", "inserted"}  # of a plan's figures, in the log's receipt


@dataclass
class ChatGeneration:
    """`base` is the text that was there when it is carried on, `prefill` a text that it was made to begin with."""

    id: str
    kind: Kind
    planned: PlannedRequest
    index: int | None
    lease: ModelLease  # on the model that planned it, until it is queued
    prefill: str = ""
    message: int | None = None
    parent: int | None = None
    carried: TreeNode | None = None
    base: str = ""
    text: str = ""
    reasoning: str = ""
    state: str = "waiting"
    tokens: int = 0
    at: str = field(default_factory=now)
    events: "asyncio.Queue[Any]" = field(default_factory=asyncio.Queue)
    job: Job | RemoteJob | None = None
    cost_before: float = 0.0  # of the chat's replies until now, in the currency of the other server's price
    answer: tuple[Answer, str | None, int] | None = None  # as it ended: why (None: cut short), and its seed
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    error: APIError | None = None  # that it ended with

    def to_json(self) -> JSON:
        """A Generation of the API."""
        shown = ("id", "kind", "message", "parent", "index", "reasoning", "state", "tokens", "at")
        return {name: getattr(self, name) for name in shown} | {"text": self.text or self.base}

    @property
    def service(self) -> Service:
        """Of the model that writes it."""
        return self.lease.service

    def submit(self) -> None:
        """Queue it. APIError where the queue is full."""
        loop = asyncio.get_running_loop()

        def record(answer: Answer, finish: str | None, seed: int) -> None:
            self.answer = answer, finish, seed

        planned = replace(self.planned, runs=[replace(run, record=record) for run in self.planned.runs])
        with self.lease as service:
            self.job = service.submit(
                planned, "chat", self.events, time.monotonic(), lambda: loop.call_soon_threadsafe(self.events.put_nowait, OVER)
            )

    def more(self, text: str, reasoning: str) -> str:
        """Take what was written, and say what of it is news."""
        before = max(len(self.text), len(self.base))
        self.text, self.reasoning, self.state, self.tokens = self.text + text, self.reasoning + reasoning, "writing", self.tokens + 1
        return self.text[before:]

    @property
    def sent(self) -> SentFigures | None:
        """Of an answer that another server's model gave, with what the chat has cost; None where it is the local model's."""
        if not isinstance(self.job, RemoteJob) or not self.job.sent:
            return None
        sent = self.job.sent[-1]
        return sent if sent.cost is None else replace(sent, total_cost=self.cost_before + sent.cost)

    @property
    def written(self) -> tuple[str, str | None]:
        """(the reply's text, why it ended: None where it was cut short)."""
        if isinstance(self.job, RemoteJob) and self.job.said:
            answer, finish = self.job.said
            return answer.text, None if finish == "interrupted" else finish
        return (self.answer[0].shown, self.answer[1]) if self.answer else ("", None)

    @property
    def receipt(self) -> JSON:
        """What the prompt held; at the end also what the reply cites, and which model gave it, if it is another server's."""
        text, _ = self.written
        elsewhere = self.job is None or isinstance(self.job, RemoteJob) and not self.job.standing_in
        info = self.planned.begun if elsewhere else self.planned.info
        kept = {key: value for key, value in info.items() if key not in NOT_KEPT} | {"dropped_messages": len(info["dropped"])}
        kept |= {"sent": self.sent.to_json()} if self.sent else {}
        kept |= {"away": self.job.away} if isinstance(self.job, RemoteJob) and self.job.away else {}
        return kept | {"parts": citing(info["parts"], text)} if text and "parts" in info else kept

    def keep(self, record: ChatRecord, identity: dict[str, str]) -> TreeNode | None:
        """Write it to the log; None where nothing was said."""
        text, finish = self.written
        if self.kind == "impersonate" or (not text and finish is None):
            return None
        facts = self._facts(*self.answer, identity) if self.answer else self._facts_elsewhere(finish)
        record.use(self.planned.sources)
        if self.carried:
            record.carry_on(self.carried, text, facts)
            return self.carried
        record.branch(self.parent or 0)
        return record.say("assistant", text, facts)

    def _facts_elsewhere(self, finish: str | None) -> JSON:
        """Of a reply that no one here can have said again."""
        assert isinstance(self.job, RemoteJob)
        said, run, sent = self.job.said, self.planned.runs[0], self.sent
        return {
            "at": now(),
            "finish_reason": finish or "interrupted",
            "prompt_tokens": self.planned.info["prompt_tokens"],
            "completion_tokens": sent.tokens if sent else 0,
            "via": dict(self.planned.place),
            "receipt": self.receipt,
            "served": True,
            **self._beside(run),
            **({"reasoning": said[0].reasoning} if said and said[0].reasoning else {}),
        }

    def _beside(self, run: AnswerRequest) -> JSON:
        """What a reply was made with, whoever made it."""
        return {
            **({"inserted": inserted} if (inserted := [text.to_json() for text in self.planned.gathered.texts]) else {}),
            **({"prefill": begun} if (begun := self.prefill or self.planned.gathered.opening) else {}),
            **({"stop": stop} if (stop := list(run.stop[len(run.prompt.stop) :])) else {}),
            "max_tokens": run.max_tokens,
        }

    def _facts(self, answer: Answer, finish: str | None, seed: int, identity: dict[str, str]) -> JSON:
        run, given = self.planned.runs[0], list(self.planned.given)
        sampled = list(answer.ids[len(run.begun) :])
        return {
            "at": now(),
            "finish_reason": finish or "interrupted",
            "sampler": replace(run.sampling, seed=seed).noted(),
            "prompt_tokens": self.planned.info["prompt_tokens"],
            "completion_tokens": len(sampled),
            "prompt_sha256": self.planned.info["prompt_sha256"],
            "identity": identity,
            "receipt": self.receipt,
            "served": True,
            **self._beside(run),
            **({"reasoning": answer.reasoning} if answer.reasoning else {}),
            **({"given_tokens": len(given)} if given else {}),
            "tokens": [*given, *sampled],
        }
