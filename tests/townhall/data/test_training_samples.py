"""What is learnt of a conversation: the replies and what ends them, as the model reads them in a chat."""

import pytest

from app.models.llama.checkpoint import open_checkpoint
from tests.reference.tiny import make_tiny_gguf
from townhall.data.training_chats import Said, TrainingChat
from townhall.data.training_samples import SampleMaker
from townhall.language_model import TextTokenizer
from townhall.persona import load_persona
from townhall.prompt import Prompt
from townhall.template import open_format

CHAT = TrainingChat((Said("user", "hi"), Said("assistant", "yo"), Said("user", "who?"), Said("assistant", "me <|im_end|>")))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return open_checkpoint(make_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")).tokenizer()


def learnt(tokenizer: TextTokenizer, maker: SampleMaker, chat: TrainingChat) -> list[str]:
    """Stretches that are learnt, with control tokens spelled."""
    sample = maker.sample(chat)
    spelled = {id: name for name, id in tokenizer.special_ids.items()}
    found, before = [""], False
    for token, learn in zip(sample.ids, sample.learnt, strict=True):
        if before and not learn:
            found.append("")
        before = learn
        if learn:
            found[-1] += spelled.get(token) or tokenizer.decode([token])
    return [text for text in found if text]


def test_replies_and_their_end_are_learnt(tokenizer: TextTokenizer) -> None:
    # a control token that a message spells is plain text
    assert learnt(tokenizer, SampleMaker(tokenizer), CHAT) == ["yo<|im_end|>", "me <|im_end|><|im_end|>"]
    sample = SampleMaker(tokenizer).sample(CHAT)
    assert sum(token == tokenizer.special_ids["<|im_end|>"] and learn for token, learn in zip(sample.ids, sample.learnt)) == 2


def test_a_persona_stands_before_it_and_is_not_learnt(tokenizer: TextTokenizer) -> None:
    persona = load_persona("stacy")
    sample = SampleMaker(tokenizer, persona).sample(CHAT)
    head = Prompt(open_format("auto", persona, tokenizer), tokenizer).head_ids
    assert sample.ids[: len(head)] == head and not any(sample.learnt[: len(head)])
    assert learnt(tokenizer, SampleMaker(tokenizer, persona), CHAT)[0] == "yo<|im_end|>"


def test_the_chat_logs_end_is_learnt_as_text(tokenizer: TextTokenizer) -> None:
    maker = SampleMaker(tokenizer, load_persona("stacy"), "chat_log")
    assert learnt(tokenizer, maker, CHAT)[0] == " yo [EOS]\n"


def test_a_system_message_of_the_data_is_read(tokenizer: TextTokenizer) -> None:
    sample = SampleMaker(tokenizer).sample(TrainingChat(CHAT.turns, system="Be brief."))
    assert "Be brief." in tokenizer.decode(sample.ids)


def test_a_text_is_learnt_whole(tokenizer: TextTokenizer) -> None:
    sample = SampleMaker(tokenizer).sample(TrainingChat(text="abc"))
    assert tokenizer.decode(sample.ids).startswith("abc") and sample.learnt[1:] == (True,) * (len(sample.ids) - 1)
    assert sample.ids[-1] == tokenizer.special_ids[tokenizer.eos_token]
