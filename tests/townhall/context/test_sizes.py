"""At the edges of the window: N - 1, N, N + 1 and 2 N for the pinned head, for one message and for one reply, under every strategy."""

import pytest

from tests.townhall.fake import FakeLlama
from tests.townhall.test_conversation import ask, chat_state, words
from townhall.context.strategies import STRATEGIES
from townhall.errors import ContextError
from townhall.persona import Persona

N = 256
SIZES = (N - 1, N, N + 1, 2 * N)
every_strategy = pytest.mark.parametrize("context", STRATEGIES)


def persona_of(tokens):
    """A persona whose head has exactly `tokens` tokens."""
    without = len(chat_state(FakeLlama(max_context=4096), Persona("Ada", words(1))).prompt.head_ids) - 1
    return Persona("Ada", words(tokens - without))


def message_of(conversation, tokens):
    return words(tokens - len(conversation.prompt.turn_ids("")))


@every_strategy
@pytest.mark.parametrize("tokens", SIZES)
def test_a_head_that_fills_the_window_is_refused_with_the_numbers(context, tokens):
    with pytest.raises(
        ContextError, match=rf"^Ada's persona takes {tokens} tokens of a window of {N}, .* or shorten the persona$"
    ) as caught:
        chat_state(FakeLlama(max_context=N), persona_of(tokens), context=context)
    assert caught.value.capacity == N < caught.value.needed


@every_strategy
@pytest.mark.parametrize("over", [-1, 0, 1, N])
def test_the_largest_persona_leaves_room_for_an_empty_turn_and_the_answer(context, over):
    empty, reserve = len(chat_state(FakeLlama()).prompt.turn_ids("")), N // 4
    persona = persona_of(N - reserve - empty + over)
    if over > 0:
        with pytest.raises(ContextError, match="leaves no room to talk"):
            chat_state(FakeLlama(max_context=N), persona, context=context)
        return
    conversation = chat_state(FakeLlama([words(2 * N)], max_context=N), persona, context=context)
    assert ask(conversation, words(-over)) and conversation.last.finish_reason == "length"


@every_strategy
@pytest.mark.parametrize("tokens", SIZES)
def test_a_message_that_fills_the_window_is_refused_whatever_was_said_before(context, tokens):
    conversation = chat_state(FakeLlama(["Fine."], max_context=N), context=context)
    ask(conversation, "Hi")
    with pytest.raises(ContextError, match=rf"{conversation.window.pinned + tokens} tokens, .* the window holds {N}.*--max-context"):
        conversation.reply(message_of(conversation, tokens))
    assert len(conversation.exchanges) == 1 and ask(conversation, "Hi") == "Fine."


@every_strategy
@pytest.mark.parametrize("over", [-1, 0, 1, N])
def test_the_largest_message_is_the_one_that_leaves_room_for_the_answer(context, over):
    conversation = chat_state(FakeLlama([words(2 * N)], max_context=N), context=context)
    message = message_of(conversation, conversation.window.budget + over)
    if over > 0:
        with pytest.raises(ContextError, match=f"{over} more than fit"):
            conversation.reply(message)
        assert not conversation.exchanges
    else:
        ask(conversation, message)
        last = conversation.last
        assert last.prompt_tokens == N - conversation.window.reserve + over
        assert (last.tokens, last.finish_reason) == (N - last.prompt_tokens + 1, "length")


@every_strategy
@pytest.mark.parametrize("over", [-1, 0, 1, N])
def test_a_reply_that_reaches_the_window_ends_with_length_and_never_with_stop(context, over):
    """The prompt and all tokens but the last are in the cache: one more than the window holds can be said."""
    script = [words(3)]
    llama = FakeLlama(script, max_context=N)
    conversation = chat_state(llama, context=context, max_tokens=10 * N)
    message = "Go on"
    room = N - conversation.window.pinned - len(conversation.prompt.turn_ids(message)) + 1
    script[0] = words(room + over)
    said = ask(conversation, message)
    last = conversation.last
    assert last.finish_reason == ("stop" if over < 0 else "length") and last.tokens == min(room, room + over)
    assert said.count("word") == last.tokens and len(conversation.cache.tokens) <= N
    script[0] = words(3)
    if context == "stop":
        with pytest.raises(ContextError, match="--context slide"):
            ask(conversation, "Hi")
    else:  # the long exchange alone is more than the next prompt may hold
        assert ask(conversation, "Hi") == words(3) and conversation.last.receipt.dropped == (0, 1)
