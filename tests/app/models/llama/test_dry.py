"""DRY against its definition, kept up to date id by id; texts that break repetitions, found in vocabularies."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from app.models.llama import dry
from app.models.llama.dry import RepetitionPenalty, z_lengths
from app.models.llama.sampler import SamplingParams
from app.models.llama.sequence_breakers import SequenceBreakers, breakers_for, breakers_of
from app.models.llama.tokenizers.tokenizer import Tokenizer
from tests.app.models.llama.sampler_reference import dry_lengths
from townhall.fake.fake_model import FakeTokenizer


def penalty(*breakers: Sequence[int], **settings: Any) -> RepetitionPenalty:
    sampling = SamplingParams(**{"dry_multiplier": 1.0, "dry_base": 2.0} | settings)
    return RepetitionPenalty(sampling, SequenceBreakers(frozenset(map(tuple, breakers))))


def test_an_example_by_hand() -> None:
    # a b c c b c y a b c: after "a b c" came c (3 the same), after "c" b (1), after "b c" y (2)
    text = [1, 2, 3, 3, 2, 3, 9, 1, 2, 3]
    assert penalty().penalties(text) == {3: 2.0, 9: 1.0}
    assert penalty(dry_allowed_length=1, dry_multiplier=0.5).penalties(text) == {3: 2.0, 9: 1.0, 2: 0.5}
    assert penalty(dry_allowed_length=4).penalties(text) == {}


def test_no_repetition_reaches_across_a_breaker_and_none_is_held_back() -> None:
    text = [1, 2, 3, 4, 5, 1, 2, 3, 4]
    assert penalty().penalties(text) == {5: 4.0}
    assert penalty([2]).penalties(text) == {5: 1.0}  # 3 4
    assert penalty([3]).penalties(text) == penalty([4]).penalties(text) == {}
    assert penalty([1, 2]).penalties(text) == {5: 1.0}  # of two ids: the same from behind both
    assert penalty([5]).penalties(text) == {}
    assert penalty([2, 5]).penalties(text) == {5: 4.0}  # it was not said


@pytest.mark.parametrize("steps", ["one by one", "several", "from the start", "another list"])
def test_what_is_kept_from_id_to_id_is_what_the_definition_says(steps: str) -> None:
    random = np.random.default_rng(len(steps))
    for _ in range(60):
        breakers = [random.integers(0, 6, int(random.integers(1, 4))).tolist() for _ in range(int(random.integers(0, 3)))]
        last_n, allowed = int(random.choice([-1, 1, 3, 20, 500])), int(random.integers(0, 4))
        kept = penalty(*breakers, dry_penalty_last_n=last_n, dry_allowed_length=allowed)
        single, text = [ids[0] for ids in breakers if len(ids) == 1], list[int]()
        for _ in range(50):
            new = random.integers(0, 6, {"several": 3, "from the start": 100}.get(steps, 1)).tolist()
            if steps in ("from the start", "another list"):
                text = text[len(text) // 2 :] if steps == "another list" else []
            text += new
            lengths = dry_lengths(text, breakers, last_n)
            expected = {n: 2.0 ** (length - allowed) for n, length in lengths.items() if length >= allowed and n not in single}
            assert kept.penalties(text) == expected, (text, breakers, last_n, allowed)
            assert kept.penalties(text) == expected  # asked again


def test_a_text_grows_beyond_what_was_set_aside() -> None:
    text, grown = list(range(5)), penalty()
    for n in range(2000):
        text.append(n % 700)
        grown.penalties(text)
    assert grown.penalties(text) == penalty().penalties(list(text)) != {}


def test_an_id_costs_one_pass_and_a_new_text_a_bounded_number_of_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(int):
        looks = 0

        def __eq__(self, other: object) -> bool:
            Counted.looks += 1
            return int(self) == int(other)  # type: ignore[call-overload]

        __hash__ = int.__hash__

    for text in ([7] * 5000, [1, 2] * 2500, list(range(2500)) * 2):  # the first would take 12 million looks one by one
        Counted.looks = 0
        lengths = z_lengths(list(map(Counted, text)))
        assert Counted.looks <= 2 * len(text)
        for i in (0, 1, 2, 2500, 4999):
            assert lengths[i] == next((n for n in range(5000 - i) if text[n] != text[i + n]), 5000 - i)
    starts: list[int] = []
    monkeypatch.setattr(dry, "z_lengths", lambda ids: starts.append(len(ids)) or z_lengths(ids))
    kept, text = penalty(), [7] * 3000
    for _ in range(100):
        assert kept.penalties(text) == {7: pytest.approx(2.0 ** int(dry.LARGEST / np.log(2)))}
        text.append(7)
    assert starts == [3000]


def test_a_text_is_found_within_tokens_and_across_them() -> None:
    tokenizer = FakeTokenizer()
    ids = {text: tokenizer.id(text) for text in ("User", " User", ":", "Us", "er", "\n", "U", "s", "e", "r")}
    found = breakers_of(tokenizer, ["\n", "ser:"])
    across = {
        (ids["Us"], *tokenizer.encode("er:", bos=False)),
        (ids["s"], *tokenizer.encode("er:", bos=False)),
        *((ids[text], ids[":"]) for text in ("User", " User")),
    }
    assert found.sequences == across | {(ids["\n"],), (1,), (3,)}  # the last two end a text
    assert found.single == {ids["\n"], 1, 3}
    assert breakers_of(tokenizer, ["\n", "ser:"]) is found


def test_no_vocabulary_is_looked_through_where_dry_is_off() -> None:
    assert breakers_for(None, SamplingParams(dry_multiplier=0)).sequences == frozenset()  # type: ignore[arg-type]


@pytest.mark.weights
def test_the_usual_breakers_in_the_default_models_vocabulary(default_model: Any) -> None:
    from app.models.llama.checkpoint import open_checkpoint

    tokenizer: Tokenizer = open_checkpoint(default_model).tokenizer()
    found = breakers_of(tokenizer, SamplingParams().dry_sequence_breakers)
    assert (
        found.single
        == {n for n, said in tokenizer.spellings() if any(text in said for text in (b"\n", b":", b'"', b"*"))} | tokenizer.stop_ids
    )
    assert all(len(ids) == 1 for ids in found.sequences)
    speaker = breakers_of(tokenizer, ["User:"])
    for text in ("\nUser: Hi", "The User: no", "User:"):
        said = tokenizer.encode(text, bos=False)
        assert any(tuple(said[at : at + len(ids)]) == ids for ids in speaker.sequences for at in range(len(said))), text
