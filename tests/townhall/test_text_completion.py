import pytest

from tests.townhall.fake import FakeLlama
from townhall.errors import ContextError
from townhall.text_completion import TextCompletion


def complete(llama, prompt, count=1000, context="slide"):
    completion = TextCompletion(llama, prompt, object(), count, context)
    return "".join(completion), completion.last


def test_a_text_is_carried_on_as_it_stands():
    llama = FakeLlama([" there was\n a king."])
    text, last = complete(llama, "Once upon a time")
    assert text == " there was\n a king."
    assert llama.tokenizer.show(llama.prompts[0]) == "<s>Once upon a time"
    assert (last.finish_reason, last.tokens, last.receipt.dropped_tokens) == ("stop", 6, 0)


@pytest.mark.parametrize("tokens, given, dropped", [(1023, 1023, 0), (1024, 1024, 0), (1025, 768, 257), (2048, 768, 1280)])
def test_a_prompt_of_any_length_is_carried_on(tokens, given, dropped):
    llama = FakeLlama([" word" * 2000])
    prompt = " word" * (tokens - 1)
    text, last = complete(llama, prompt)
    assert (last.prompt_tokens, last.receipt.dropped_tokens, last.finish_reason) == (given, dropped, "length")
    assert last.tokens == 1024 - given + 1
    assert llama.prompts[0][0] == 0  # BOS
    assert bool(last.receipt.describe()) == bool(dropped)


def test_stop_refuses_a_prompt_longer_than_the_window():
    assert complete(FakeLlama(), " word" * 1023, context="stop")[1].prompt_tokens == 1024
    with pytest.raises(ContextError, match="1025 tokens and the window holds 1024.*--max-context"):
        complete(FakeLlama(), " word" * 1024, context="stop")


def test_an_interrupted_text_has_its_figures_too():
    completion = TextCompletion(FakeLlama([["a", "b", KeyboardInterrupt()]]), "x", object(), 10)
    with pytest.raises(KeyboardInterrupt):
        list(completion)
    assert (completion.last.text, completion.last.finish_reason) == ("ab", "interrupted")
