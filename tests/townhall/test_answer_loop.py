"""The loop that reads and samples: a step a pass, an end at a stop string, nothing after it is closed."""

from tests.townhall.fake import FakeLlama
from townhall.answer_loop import AnswerLoop


class Words:
    """A sink that stops at the third id."""

    def __init__(self, stop_at=None):
        self.ids, self.stop_at, self.flushed = [], stop_at, False

    @property
    def stopped(self):
        return self.stop_at is not None and len(self.ids) >= self.stop_at

    def push(self, token):
        self.ids.append(token)
        return len(self.ids)

    def interject(self):
        return ()

    def flush(self):
        self.flushed = True
        return 0


def loop_over(sink, prompt=tuple(range(300)), sizes=(128, 32)):
    llama = FakeLlama([[" a", " b", " c", " d", " e"]], max_context=1024)
    llama.prefill_sizes = sizes
    cache = llama.new_cache()
    return AnswerLoop(llama, prompt, cache, lambda: llama.generate(list(prompt), 10, cache=cache), sink), cache


def test_a_prompt_is_read_in_steps_and_then_each_token_is_one():
    loop, cache = loop_over(sink := Words())
    steps = list(loop)
    assert steps[:3] == [None] * 3 and steps[3:] == [1, 2, 3, 4, 5, 0]  # 299 tokens in passes of 128
    assert (loop.finish, loop.tokens, sink.flushed, loop.cached) == ("stop", 5, True, 0)


def test_a_step_reads_as_much_as_the_models_largest_pass():
    loop, _ = loop_over(Words(), tuple(range(1001)), sizes=(512, 128, 32))
    assert list(loop)[:3] == [None, None, 1]  # 1,000 tokens in two passes, as a GPU has them


def test_it_ends_where_the_sink_has_stopped():
    loop, _ = loop_over(sink := Words(stop_at=3))
    assert [step for step in loop if step is not None] == [1, 2, 3]
    assert (loop.finish, loop.tokens, sink.flushed) == ("stop", 3, False)


def test_closed_while_it_reads_it_leaves_what_was_read():
    loop, cache = loop_over(Words())
    steps = loop.steps()
    next(steps)
    steps.close()
    assert loop.reading and loop.finish is None and len(cache.tokens) == 128
