"""Turns on one engine."""

import threading

import pytest

from app.models.llama.sampling_params import SamplingParams
from tests.townhall.fake import FailingGeneration, FakeLlama
from townhall.persona import Persona
from townhall.prompt import Prompt
from townhall.server.errors import APIError
from townhall.server.job import AnswerEnd, AnswerRequest, Job, JobDone, JobFailed, TextEvent
from townhall.server.scheduler import Scheduler
from townhall.server.slots import Slots
from townhall.template import open_format


class Gate(FailingGeneration):
    """Waits at each token until it is opened."""

    opened = threading.Semaphore(0)

    def __next__(self):
        assert Gate.opened.acquire(timeout=60)
        return super().__next__()


class Hall:
    """A scheduler over a double whose tokens come one by one as `allow` says."""

    def __init__(self, answers, most=2, max_queue=10):
        Gate.opened = threading.Semaphore(0)
        self.llama = FakeLlama(lambda prompt: next(answer for word, answer in answers.items() if word in prompt))
        self.llama.generation = Gate
        self.prompt = Prompt(open_format("auto", Persona("Assistant", ""), self.llama.tokenizer), self.llama.tokenizer)
        self.scheduler = Scheduler(max_queue)
        self.events, self.changed = [], threading.Condition()
        self.slots = Slots(lambda adapters: self.llama.new_cache(), most)
        self.scheduler.start(lambda: (self.llama, self.slots), self.tell)

    def tell(self, event, name="scheduler"):
        with self.changed:
            self.events.append((name, event))
            self.changed.notify_all()

    def submit(self, word, lane="chat", **settings):
        ids = self.prompt.turn_ids(word)
        run = AnswerRequest(0, self.prompt, ids, SamplingParams(), 100, (), self.llama.tokenizer.stop_ids)
        job = Job([run], lambda event: self.tell(event, word), lambda text, ids: None, lane, **settings)
        self.scheduler.submit(job)
        return job

    def allow(self, tokens):
        Gate.opened.release(tokens)

    def until(self, condition):
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self.events), 60), self.events

    def said(self, name):
        return "".join(event.text for who, event in self.events if who == name and isinstance(event, TextEvent))

    def ended(self, name):
        return [event for who, event in self.events if who == name and isinstance(event, JobDone | JobFailed)]


@pytest.fixture
def hall():
    halls = []

    def build(*arguments, **settings):
        halls.append(Hall(*arguments, **settings))
        return halls[-1]

    yield build
    for one in halls:
        one.scheduler.drain(0)
        one.allow(10_000)
        one.scheduler.join(60)


LONG = " ".join(["la"] * 90)


def test_a_short_request_is_not_stuck_behind_a_long_one(hall):
    here = hall({"sing": LONG, "name": "Stacy."})
    here.submit("sing")
    here.allow(10)
    here.until(lambda events: here.said("sing"))
    here.submit("name")
    here.allow(20)
    here.until(lambda events: here.ended("name"))
    assert here.said("name") == "Stacy." and not here.ended("sing")


def test_a_request_beyond_the_slots_waits_for_one(hall):
    here = hall({"one": "One.", "two": "Two.", "three": "Three."}, most=1)
    for name in ("one", "two", "three"):
        here.submit(name)
    here.allow(100)
    here.until(lambda events: here.ended("three"))
    order = [name for name, event in here.events if isinstance(event, AnswerEnd)]
    assert order == ["one", "two", "three"]


def test_one_that_is_cancelled_leaves_at_the_next_token(hall):
    here = hall({"sing": LONG, "name": "Stacy."}, most=1)
    job = here.submit("sing")
    here.allow(5)
    here.until(lambda events: here.said("sing"))
    job.cancel()
    here.submit("name")
    here.allow(10)
    here.until(lambda events: here.ended("name"))
    assert not here.ended("sing") and len(here.said("sing").split()) <= 6


def test_one_that_fails_takes_its_cache_with_it_and_nothing_else(hall):
    here = hall({"crash": ["well", ZeroDivisionError("a bug")], "name": "Stacy."})
    here.submit("crash")
    here.submit("name")
    here.allow(50)
    here.until(lambda events: here.ended("crash") and here.ended("name"))
    (failure,) = here.ended("crash")
    assert failure.error.status == 500 and "bug" not in failure.error.message
    assert here.said("name") == "Stacy." and len(here.slots._slots) == 1


def test_a_full_queue_refuses_and_says_when_to_come_again(hall):
    here = hall({"sing": LONG}, most=1, max_queue=1)
    here.submit("sing")
    here.allow(1)
    here.until(lambda events: here.said("sing"))
    here.submit("sing")
    with pytest.raises(APIError) as refused:
        here.submit("sing")
    assert refused.value.status == 429 and refused.value.headers["Retry-After"]


def test_who_finds_a_free_slot_waits_in_no_queue(hall):
    here = hall({"sing": LONG, "name": "Stacy.", "title": LONG}, most=2, max_queue=0)
    here.submit("title", lane="background")
    with pytest.raises(APIError):
        here.submit("title", lane="background")
    here.submit("sing")
    here.submit("name")
    with pytest.raises(APIError):
        here.submit("name")
    here.allow(60)
    here.until(lambda events: here.ended("name"))


def test_the_background_lane_gets_its_turn_and_no_more(hall):
    here = hall({"sing": LONG, "title": LONG})
    here.submit("sing")
    here.submit("title", lane="background")
    here.allow(60)
    here.until(lambda events: len(here.said("sing").split()) >= 40)
    assert 5 <= len(here.said("title").split()) <= 20


def test_time_is_up_for_who_runs_and_for_who_waits(hall):
    here = hall({"sing": LONG, "wait": LONG}, most=1)
    here.submit("sing")
    here.allow(2)
    here.until(lambda events: here.said("sing"))
    here.submit("wait", deadline=0.0)
    here.allow(5)
    here.until(lambda events: here.ended("wait"))
    assert here.ended("wait")[0].error.status == 408


def test_draining_takes_no_more_and_ends_with_a_reason(hall):
    here = hall({"sing": LONG})
    here.submit("sing")
    here.allow(3)
    here.until(lambda events: here.said("sing"))
    here.scheduler.drain(0)
    with pytest.raises(APIError, match="shutting down"):
        here.submit("sing")
    here.allow(3)
    here.until(lambda events: here.ended("sing"))
    assert here.ended("sing")[0].error.code == "shutting_down"
