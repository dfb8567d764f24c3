import json

import pytest

from tests.townhall.fake import CHATML, FakeLlama, FakeTokenizer
from townhall import Conversation, load_persona
from townhall.errors import ContextError
from townhall.persona import Example, Persona

PERSONA = Persona("Stacy", "Stacy raps.", examples=(Example("Your name?", "Stacy."),))


def chat_state(llama, persona=PERSONA, **settings):
    return Conversation(llama, persona, sampling=object(), **settings)


def ask(conversation, text):
    return "".join(conversation.reply(text))


def log_model(script, **settings):
    return FakeLlama(script, tokenizer=FakeTokenizer(chat_template=None), **settings)


def words(n):
    return " ".join(["word"] * n)


def test_an_answer_is_what_the_model_said_and_its_figures():
    llama = FakeLlama(["Paris is big."])
    conversation = chat_state(llama)
    conversation.prepare()
    assert ask(conversation, "What is big?") == "Paris is big."
    last, head = conversation.last, len(conversation.prompt.head_ids)
    assert (last.text, last.tokens, last.finish_reason, last.device) == ("Paris is big.", 4, "stop", "FAKE")
    assert (last.prompt_tokens, last.cached_tokens) == (len(llama.prompts[0]), head)
    assert json.loads(json.dumps(last.to_json()))["receipt"]["pinned_tokens"] == head


@pytest.mark.parametrize("format", ["chat_log", "chat_template"])
def test_the_format_follows_the_flag_and_else_the_model(format):
    template = FakeLlama(tokenizer=FakeTokenizer(CHATML))
    assert chat_state(template).prompt.format.name == "chat_template"
    assert chat_state(log_model(["x"])).prompt.format.name == "chat_log"
    assert chat_state(template, format=format).prompt.format.name == format


def test_the_persona_is_read_once_and_a_turn_costs_its_own_tokens_only():
    llama = FakeLlama(["Fine."])
    conversation = chat_state(llama)
    head = conversation.prepare().prompt_tokens
    assert llama.computed == head
    for turn in range(20):
        ask(conversation, "How are you?")
        last = conversation.last
        # besides its own: the answer's last token, which was sampled but not read, and the answer's end marker
        assert last.prompt_tokens - last.cached_tokens <= len(conversation.exchanges[-1].user.ids) + (3 if turn else 0)
        assert last.receipt.recomputed_tokens == 0


def test_a_history_keeps_the_ids_that_were_sampled():
    llama = FakeLlama([["Pa", "ris", "."]])  # no tokenizer would cut the word so
    conversation = chat_state(llama)
    ask(conversation, "Where?")
    ask(conversation, "Where?")
    ids = [llama.tokenizer.id(text) for text in ("Pa", "ris", ".", "<|im_end|>")]
    at = len(llama.prompts[0])
    assert llama.prompts[1][:at] == llama.prompts[0] and llama.prompts[1][at : at + 4] == ids


@pytest.mark.parametrize("end", [" [EOS]\n", "[EOS]", "\nUser: and then", " [EOS] User: more", "\n\n [EOS]"])
def test_no_marker_of_the_chat_log_leaks_into_an_answer(end):
    llama = log_model([" Yo, it is 1789." + end])
    conversation = chat_state(llama)
    pieces = list(conversation.reply("When?"))
    assert "".join(pieces) == "Yo, it is 1789." and len(pieces) > 3
    assert conversation.last.finish_reason == "stop"
    ask(conversation, "And?")
    assert llama.tokenizer.show(llama.prompts[1]).endswith("User: When?\nStacy: Yo, it is 1789. [EOS]\nUser: And?\nStacy:")


def test_an_answer_that_a_stop_string_ends_is_found_again_in_the_cache():
    llama = log_model([" It was in July. [EOS]\n"])
    conversation = chat_state(llama)
    ask(conversation, "When?")
    ask(conversation, "Sure?")
    first = len(llama.prompts[0])
    assert conversation.last.cached_tokens >= first + len(" It was in July .".split())


def test_special_tokens_that_a_model_samples_do_not_show():
    llama = FakeLlama([["Hi", "<s>", " there", "<|im_start|>", "system"]])
    conversation = chat_state(llama)
    assert ask(conversation, "Hi") == "Hi there"
    assert conversation.last.finish_reason == "stop"


def test_an_answer_of_nothing_is_an_answer():
    conversation = chat_state(FakeLlama([[]]))
    assert ask(conversation, "Hi") == "" and conversation.last.finish_reason == "stop"
    assert ask(conversation, "Hi") == "" and len(conversation.exchanges) == 2


@pytest.mark.parametrize("capacity, max_tokens, tokens", [(1024, 5, 5), (256, 1000, None)])
def test_an_answer_cut_by_max_tokens_or_by_the_window_ends_with_length(capacity, max_tokens, tokens):
    llama = FakeLlama([words(2000)], max_context=capacity)
    conversation = chat_state(llama, max_tokens=max_tokens)
    ask(conversation, "Go on")
    last = conversation.last
    assert last.finish_reason == "length"
    assert last.tokens == (tokens or capacity - last.prompt_tokens + 1)
    ask(conversation, "And on")  # the conversation does not die of it
    assert len(conversation.exchanges) == 2


def test_a_conversation_of_any_length_keeps_the_persona_at_its_head():
    llama = FakeLlama(lambda prompt: words(1 + len(llama.prompts) * 37 % 150))
    conversation = chat_state(llama, load_persona("stacy"))
    conversation.prepare()
    said, overflows = 0, 0
    for turn in range(120):
        ask(conversation, words(1 + turn * 13 % 60))
        last, exchange = conversation.last, conversation.exchanges[-1]
        said += exchange.tokens
        overflows += bool(last.receipt.dropped)
        assert llama.prompts[-1][: len(conversation.prompt.head_ids)] == list(conversation.prompt.head_ids)
        assert last.prompt_tokens <= 1024 - conversation.window.reserve
        assert (last.receipt.recomputed_tokens > 0) <= bool(last.receipt.dropped)
        if last.receipt.dropped:
            assert last.receipt.dropped_tokens >= 256
    assert said > 3000 and 3 < overflows < 60
    assert len(conversation.exchanges) == 120  # the history is whole, whatever the window holds
    assert conversation.plan.kept == tuple(conversation.exchanges[-len(conversation.plan.kept) :])
    assert [m.id for e in conversation.exchanges for m in e.messages] == list(range(240))


def test_a_receipt_names_what_was_dropped():
    llama = FakeLlama([words(60)], max_context=256)
    conversation = chat_state(llama)
    while not (conversation.last and conversation.last.receipt.dropped):
        ask(conversation, words(20))
    receipt, gone = conversation.last.receipt, conversation.exchanges[: len(conversation.last.receipt.dropped) // 2]
    assert receipt.dropped == tuple(m.id for e in gone for m in e.messages)
    assert receipt.dropped_tokens == sum(e.tokens for e in gone)
    stayed = sum(e.tokens for e in conversation.exchanges[len(gone) : -1])
    assert receipt.recomputed_tokens <= stayed and (receipt.strategy, receipt.window) == ("slide", 256)


def sized_message(conversation, tokens):
    """A message whose turn has exactly `tokens` tokens."""
    message = words(tokens - len(conversation.prompt.turn_ids("")))
    assert len(conversation.prompt.turn_ids(message)) == tokens
    return message


@pytest.mark.parametrize("tokens", [1023, 1024, 1025, 2048, 100_000])
@pytest.mark.parametrize("context", ["slide", "stop"])
def test_a_message_that_cannot_fit_is_refused_and_the_conversation_goes_on(tokens, context):
    conversation = chat_state(FakeLlama(["Fine."]), context=context)
    ask(conversation, "Hi")
    with pytest.raises(ContextError, match="1024.*shorten it.*--max-context"):
        conversation.reply(sized_message(conversation, tokens))
    assert len(conversation.exchanges) == 1
    assert ask(conversation, "Hi") == "Fine." and conversation.exchanges[-1].user.id == 2


@pytest.mark.parametrize("total", [1023, 1024, 1025])
@pytest.mark.parametrize("max_tokens", [1, 512])
def test_the_largest_message_that_leaves_room_for_an_answer_is_taken(total, max_tokens):
    conversation = chat_state(FakeLlama([words(50)]), max_tokens=max_tokens)
    window = conversation.window
    ask(conversation, "Hi")
    message = sized_message(conversation, window.capacity - window.pinned - window.reserve - (1024 - total))
    if total > 1024:
        with pytest.raises(ContextError):
            conversation.reply(message)
    else:
        ask(conversation, message)
        assert conversation.last.prompt_tokens == total - window.reserve and conversation.last.tokens >= 1


def test_a_message_of_absurd_length_is_refused_without_being_tokenised():
    llama = FakeLlama()
    conversation = chat_state(llama)
    llama.tokenizer.encode_pieces = None
    with pytest.raises(ContextError, match="300,000 characters"):
        conversation.reply("x" * 300_000)


def test_stop_refuses_and_reset_helps():
    conversation = chat_state(FakeLlama([words(100)], max_context=512), context="stop")
    with pytest.raises(ContextError, match="more than fit"):
        for _ in range(9):
            ask(conversation, "Hi")
    before = len(conversation.exchanges)
    assert before >= 2
    conversation.reset()
    assert ask(conversation, "Hi") and len(conversation.exchanges) == 1


@pytest.mark.parametrize("more", [-1, 0, 1, 256])
def test_a_persona_that_leaves_no_room_is_refused_with_the_numbers(more):
    capacity = 256
    persona = Persona("Ada", words(100))
    template = chat_state(FakeLlama(max_context=1024), persona)
    room = capacity - capacity // 4 - len(template.prompt.turn_ids(""))
    persona = Persona("Ada", words(100 + room - len(template.prompt.head_ids) + more))
    if more > 0:
        with pytest.raises(ContextError, match=f"Ada's persona takes {room + more} tokens of a window of 256") as caught:
            chat_state(FakeLlama(max_context=capacity), persona)
        enough = int(str(caught.value).split("--max-context ")[1].split()[0])
        chat_state(FakeLlama(max_context=enough), persona)
        with pytest.raises(ContextError):
            chat_state(FakeLlama(max_context=enough - 1), persona)
    else:
        assert chat_state(FakeLlama(max_context=capacity), persona).window.pinned == room + more


@pytest.mark.parametrize("how", ["closed", "ctrl-c"])
def test_an_interrupted_answer_is_kept_as_far_as_it_was_shown(how):
    tokens = ["One", " two", " three", " four"]
    llama = FakeLlama([[*tokens, KeyboardInterrupt(), " five"], ["Yes", "."]])
    conversation = chat_state(llama)
    pieces = conversation.reply("Count")
    shown = [next(pieces) for _ in range(4)]
    if how == "closed":
        pieces.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            next(pieces)
    assert "".join(shown) == "One two three four" == conversation.last.text
    assert conversation.last.finish_reason == "interrupted"
    assert ask(conversation, "Again") == "Yes."
    assert "assistant\nOne two three four<|im_end|>\n<|im_start|>user\nAgain" in llama.tokenizer.show(llama.prompts[-1])


def test_what_was_held_back_when_an_answer_was_interrupted_is_not_kept():
    llama = log_model([[" Yes", ".", " [", "E", KeyboardInterrupt()], [" Ok", "."]])
    conversation = chat_state(llama)
    with pytest.raises(KeyboardInterrupt):
        ask(conversation, "Well?")
    assert conversation.last.text == "Yes."
    ask(conversation, "So?")
    assert "Stacy: Yes. [EOS]\nUser: So?" in llama.tokenizer.show(llama.prompts[-1])


def test_an_answer_interrupted_before_its_first_word_never_happened():
    llama = FakeLlama([[KeyboardInterrupt()], ["Hi", "."]])
    conversation = chat_state(llama)
    with pytest.raises(KeyboardInterrupt):
        ask(conversation, "Wrong")
    assert not conversation.exchanges
    ask(conversation, "Right")
    assert "Wrong" not in llama.tokenizer.show(llama.prompts[-1])


def test_an_error_in_the_model_leaves_the_conversation_as_it_was():
    llama = FakeLlama([["Hi", RuntimeError("out of memory")], ["Hi", "."]])
    conversation = chat_state(llama)
    with pytest.raises(RuntimeError):
        ask(conversation, "One")
    assert not conversation.exchanges and conversation.last is None
    assert ask(conversation, "Two") == "Hi."


def test_a_token_that_is_shown_in_part_is_encoded_anew():
    llama = log_model([[" Yes", ". [EOS]", "\n"], [" Ok", "."]])
    conversation = chat_state(llama)
    assert ask(conversation, "Well?") == "Yes."
    assert llama.tokenizer.show(conversation.exchanges[0].reply.ids) == " Yes. [EOS]\n"


def test_the_strategy_is_told_which_positions_left_the_cache():
    llama = FakeLlama([words(60)], max_context=256)
    conversation = chat_state(llama)
    info = []
    conversation.strategy.settle = lambda cache, removed: info.append((removed, list(cache.tokens)))
    while not info or not info[-1][0]:
        ask(conversation, words(20))
    (start, stop), tokens = info[-1]
    gone = conversation.exchanges[: len(conversation.last.receipt.dropped) // 2]
    assert tokens[start:stop] == [token for exchange in gone for message in exchange.messages for token in message.ids]
    assert start == conversation.window.pinned


def test_the_window_can_be_looked_at():
    conversation = chat_state(FakeLlama(["Fine."]))
    ask(conversation, "Hi")
    usage = conversation.usage()
    assert usage.recent == conversation.exchanges[0].tokens and usage.pinned == len(conversation.prompt.head_ids)
    assert usage.pinned + usage.recent + usage.reserve + usage.free == usage.window == 1024


def test_a_template_whose_turns_depend_on_each_other_still_makes_a_conversation():
    counting = "{% for m in messages %}{{ loop.index }}{{ m.content }}<|im_end|>{% endfor %}{{ 'assistant:' if add_generation_prompt }}"
    llama = FakeLlama([words(40)], max_context=256, tokenizer=FakeTokenizer(counting))
    conversation = chat_state(llama)
    assert not conversation.prompt.format.turn_by_turn
    for _ in range(30):
        assert ask(conversation, words(20)) == words(40)
        assert conversation.last.prompt_tokens <= 192
        assert llama.prompts[-1][: conversation.window.pinned] == list(conversation.prompt.head_ids)
