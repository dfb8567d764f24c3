"""Where tokens begin in a text, against the tokenizers package."""

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer as Reference
from tokenizers import models, pre_tokenizers

from tests.app.models.llama.tokenizers.test_normalizer import MARKED, TEXTS, WAYS, tokenizer_of, write_json
from tests.reference.tiny_formats import write_tokenizer_json
from tests.reference.words import MERGES, SPECIAL_TOKENS, TOKENS
from townhall.server.text_offsets import TextOffsets


def offsets(tokenizer, ids, text, echo=True, after=()):
    special = {n: spelled for spelled, n in tokenizer.special_ids.items()}
    found = TextOffsets(tokenizer, SimpleNamespace(ids=ids, text=text, echo=echo), special)
    return [found.next(token) for token in ([*ids, *after] if echo else after)]


@pytest.mark.parametrize("way", ["legacy", "first", "always", "never"])
def test_tokens_of_a_prompt_begin_where_the_tokenizers_package_says(way, tmp_path):
    reference = write_json(tmp_path, *WAYS[way])
    ours = tokenizer_of(tmp_path)
    for text in [*TEXTS, *MARKED]:
        encoded = reference.encode(text, add_special_tokens=False)
        assert offsets(ours, encoded.ids, text) == [start for start, _ in encoded.offsets], text


def test_bytes_of_a_character_begin_where_it_does(tmp_path):
    write_tokenizer_json(tmp_path)
    ours, cuts = tokenizer_of(tmp_path), [tuple(pair.split(" ")) for pair in MERGES]
    reference = Reference(models.BPE({token: n for n, token in enumerate(TOKENS)}, cuts))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference.add_special_tokens(SPECIAL_TOKENS)
    for text in [*TEXTS, "that 你好🙂 it<|im_end|>\n<|im_start|>in the"]:
        encoded = reference.encode(text)
        assert offsets(ours, encoded.ids, text) == [start for start, _ in encoded.offsets], text


def test_an_answer_goes_on_where_the_prompt_ends(tmp_path):
    write_json(tmp_path, *WAYS["legacy"])
    ours = tokenizer_of(tmp_path)
    ids, after = [1, *ours.encode("the dog", bos=False)], ours.encode_pieces([(" é she", False)], bos=False, continued=True)
    begun = offsets(ours, ids, "the dog", after=after)
    assert begun[:2] == [0, 0]  # a BOS that was put in front takes no place
    assert begun[len(ids) :] == offsets(ours, ids, "the dog", echo=False, after=after)
    assert begun[len(ids)] == len("the dog")
    assert begun[-1] < len("the dog é she")
