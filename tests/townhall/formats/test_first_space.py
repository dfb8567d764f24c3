"""Turns encoded one by one give the ids of the whole text, wherever a tokenizer puts the space that a text begins with."""

import io
import json
from pathlib import Path

import pytest
import sentencepiece

from app.models.llama.tokenizers.tokenizer import Tokenizer
from app.models.llama.tokenizers.tokenizer_folder import read_tokenizer_folder
from townhall.formats.chat_template import ChatTemplate
from townhall.persona import Persona
from townhall.prompt import Prompt

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE.replace("</s>\n", "</s>")])
@pytest.mark.parametrize("legacy", [True, False])
def test_turns_encoded_one_by_one_are_the_whole_text(legacy: bool, template: str, tmp_path: Path) -> None:
    model = io.BytesIO()
    sentences = ["the quick brown fox jumps over the lazy dog user system assistant"] * 10
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=320,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"legacy": legacy}))
    files = read_tokenizer_folder(tmp_path)
    tokenizer = Tokenizer.from_gguf(files.metadata, tmp_path, files.stop_ids)
    prompt = Prompt(ChatTemplate(Persona("Fox", "be quick"), template, "<s>", "</s>"), tokenizer)
    ids = [*prompt.head_ids, *prompt.turn_ids("the dog"), *prompt.reply_ids("the fox"), *prompt.turn_ids("over")]
    turns = [("system", "be quick"), ("user", "the dog"), ("assistant", "the fox"), ("user", "over")]
    end = "</s>\n" if "</s>\n" in template else "</s>"
    whole = "".join(f"<|{role}|>\n{text}{end}" for role, text in turns) + "<|assistant|>\n"
    assert ids == tokenizer.encode(whole)
