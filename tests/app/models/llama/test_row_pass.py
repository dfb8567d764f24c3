"""Steps of several conversations in one pass: each bit-equal to its own run alone, while others join and leave."""

from pathlib import Path

import numpy as np
import pytest

from app.models.llama import Llama, SamplingParams
from app.models.llama.kv_cache import KVCache
from app.models.llama.lora.adapter import Adapter, LowRank, adaptable_shapes
from app.models.llama.shared_passes import NextTokens
from tests.reference.adapters import CASES, stored_cases, write_adapter
from tests.reference.families import CONTEXT, ids_of, write_family
from tests.reference.tiny import make_tiny_gguf

CONVERSATIONS = 5


def next_of(llama: Llama, cache: KVCache, tokens: list[int]) -> NextTokens:
    return NextTokens(cache, tokens, llama.model)


def prompt_of(rng: np.random.Generator, tokens: int) -> list[int]:
    return [int(i) for i in rng.integers(0, 250, tokens)]


@pytest.fixture(scope="module", params=["f16", pytest.param("q8_0", marks=pytest.mark.slow)])
def llama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    path = tmp_path_factory.mktemp("rows") / "tiny.gguf"
    make_tiny_gguf(path, type="Q4_0", embedding_type="F16", dim=128, n_heads=4, n_kv_heads=2, hidden_dim=256)
    llama = Llama.load(path, max_context=100, device="CPU", kv=request.param)
    llama.share_passes(CONVERSATIONS)
    if not llama.most_rows:
        pytest.skip("no such passes here")
    return llama


def alone(llama: Llama, ids: list[int]) -> np.ndarray:
    """The logits after the last of `ids`, all but the prompt's first 20 decoded one by one in a cache of its own."""
    cache = KVCache(llama.config, 100, llama.model.rows, llama._cache_dtype, "CPU", llama._shifter, llama._identity)
    llama.prefill(ids[:20], cache)
    for token in ids[20:]:
        logits = llama.engine.step(token, cache)
    return logits.copy()


def test_conversations_that_join_and_leave_at_any_token_are_computed_as_alone(llama: Llama) -> None:
    rng = np.random.default_rng(1)
    caches = list[KVCache]()
    checked = 0
    for _ in range(60):
        if len(caches) < CONVERSATIONS and rng.random() < 0.4:
            caches.append(llama.new_cache())
            llama.prefill(prompt_of(rng, 20), caches[-1])
        if caches and rng.random() < 0.15:
            caches.pop(int(rng.integers(len(caches))))
        together = [cache for cache in caches if rng.random() < 0.8 and len(cache.tokens) < 60]
        if not together:
            continue
        tokens = prompt_of(rng, len(together))
        llama.compute_ahead([next_of(llama, cache, [token]) for cache, token in zip(together, tokens, strict=True)])
        for i in rng.permutation(len(together)):
            logits = llama.engine.step(tokens[i], together[i])
            if rng.random() < 0.2:
                np.testing.assert_array_equal(logits, alone(llama, together[i].tokens))
                checked += 1
    assert checked > 10


def test_several_tokens_of_one_conversation_are_those_of_as_many_steps(llama: Llama) -> None:
    rng = np.random.default_rng(2)
    ids, other = prompt_of(rng, 25), llama.new_cache()
    cache = llama.new_cache()
    for one in (cache, other):
        llama.prefill(ids[:20], one)
    llama.compute_ahead([next_of(llama, cache, ids[20:23]), next_of(llama, other, [7])])
    np.testing.assert_array_equal(llama.engine.step(7, other), alone(llama, [*ids[:20], 7]))
    for n in (21, 22, 23):
        np.testing.assert_array_equal(llama.engine.step(ids[n - 1], cache), alone(llama, ids[:n]))
    assert not cache.ahead and cache.tokens == ids[:23]


def test_a_guess_that_was_wrong_leaves_nothing_behind(llama: Llama) -> None:
    rng = np.random.default_rng(3)
    ids, cache = prompt_of(rng, 24), llama.new_cache()
    llama.prefill(ids[:20], cache)
    llama.compute_ahead([next_of(llama, cache, [ids[20], 1, 2, 3])])
    llama.engine.step(ids[20], cache)
    for n in (22, 23, 24):
        np.testing.assert_array_equal(llama.engine.step(ids[n - 1], cache), alone(llama, ids[:n]))


def test_what_happens_to_a_cache_in_between_is_not_answered_from_before(llama: Llama) -> None:
    rng = np.random.default_rng(4)
    ids, cache = prompt_of(rng, 22), llama.new_cache()
    llama.prefill(ids[:20], cache)
    llama.compute_ahead([next_of(llama, cache, [5])])
    llama.prefill(ids[:21], cache)  # goes over the row that holds the 5
    np.testing.assert_array_equal(llama.engine.step(5, cache), reread(llama, [*ids[:21], 5]))
    llama.compute_ahead([next_of(llama, cache, [5])])
    cache.truncate(20)
    np.testing.assert_array_equal(llama.engine.step(5, cache), alone(llama, [*ids[:20], 5]))


def reread(llama: Llama, ids: list[int]) -> np.ndarray:
    cache = llama.new_cache()
    llama.prefill(ids[:-1], cache)
    return llama.engine.step(ids[-1], cache).copy()


def test_generations_together_say_what_each_says_alone(llama: Llama) -> None:
    rng = np.random.default_rng(5)
    prompts = [prompt_of(rng, n) for n in (4, 33, 50, 7)]
    sampling = [SamplingParams(temperature=1.0, seed=n) for n in range(4)]
    expected = [list(llama.generate(p, 30, s, stop_ids=frozenset())) for p, s in zip(prompts, sampling, strict=True)]
    running = {n: llama.generate(prompts[n], 30, sampling[n], llama.new_cache(), frozenset()) for n in range(4)}
    said: dict[int, list[int]] = {n: [] for n in running}
    for n in running:
        llama.prefill(prompts[n][:-1], running[n]._cache)
    round = 0
    while any(len(ids) < 30 for ids in said.values()):
        round += 1
        going = [n for n in running if len(said[n]) < 30 and round >= 5 * n]  # each joins five rounds after the one before
        together = [upcoming for n in going if (upcoming := running[n].upcoming)]
        assert len(together) == len(going)
        if together:
            llama.compute_ahead(together)
        for n in going:
            said[n].append(next(running[n]))
            assert running[n].shared_seconds > 0
    assert [said[n] for n in range(4)] == expected


def test_a_slot_that_was_left_is_taken_again_empty(llama: Llama) -> None:
    caches = [llama.new_cache() for _ in range(CONVERSATIONS + 2)]
    slots = [cache.slot for cache in caches]
    assert sorted(slots) == [-1, -1, *range(CONVERSATIONS)] and [cache.arena is None for cache in caches] == [slot < 0 for slot in slots]
    llama.prefill(prompt_of(np.random.default_rng(6), 40), caches[0])
    slot = caches[0].slot
    del caches[0]
    again = llama.new_cache()
    assert again.slot == slot and not np.any(again.layers[0].k.numpy())
    caches.clear()


@pytest.mark.slow
def test_a_model_of_floats_is_computed_as_alone(tmp_path: Path) -> None:
    make_tiny_gguf(path := tmp_path / "tiny.gguf", dim=128, n_heads=4, n_kv_heads=4, hidden_dim=256)
    llama = Llama.load(path, max_context=100, device="CPU")
    llama.share_passes(2, rows=6)
    if not llama.most_rows:
        pytest.skip("no such passes here")
    rng = np.random.default_rng(7)
    a, b, ids = llama.new_cache(), llama.new_cache(), prompt_of(rng, 30)
    for cache in (a, b):
        llama.prefill(ids[:20], cache)
    llama.compute_ahead([next_of(llama, a, ids[20:23]), next_of(llama, b, ids[20:22])])
    for n in (21, 22, 23):
        np.testing.assert_array_equal(llama.engine.step(ids[n - 1], a), alone(llama, ids[:n]))
    np.testing.assert_array_equal(llama.engine.step(ids[20], b), alone(llama, ids[:21]))


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Llama]:
    """The base, and the same model through adapters of several kinds, all of them made ready for passes over four caches."""
    folder = tmp_path_factory.mktemp("through")
    bare = Llama.load(write_family(CASES["all"][0], folder / "base"), CONTEXT, device="CPU", quantize=True)
    bare.share_passes(4, 6)  # before others are made of it: they take over its arena
    kinds = ("all", "odd-rank", "rslora", "layers", "dora", "head", "dora-embedding", "saved")
    found = {"": bare} | {
        kind: bare.adapted([(write_adapter(stored_cases()[kind], folder / kind), 0.5 if kind == "dora" else 1.0)]) for kind in kinds
    }
    for llama in found.values():
        llama.share_passes(4, 6)
    if not bare.most_rows:
        pytest.skip("no such passes here")
    return found


def shares(through: dict[str, Llama], kinds: tuple[str, ...]) -> None:
    """Each has two tokens computed in passes with the others, and alone; both must be equal to the bit, and another than the base's."""
    ids, caches = ids_of(12), [through[kind].new_cache() for kind in kinds]
    expected = [alone_through(through[kind], ids) for kind in kinds]
    for kind, cache in zip(kinds, caches, strict=True):
        through[kind].prefill(ids[:8], cache)
    wanted = []
    for i, (kind, cache) in enumerate(zip(kinds, caches, strict=True)):
        model = through[kind].model if through[kind].adapters is None else through[kind].adapters.model  # type: ignore[union-attr]
        wanted.append(NextTokens(cache, ids[8 : 10 - i % 2], model))
    through[""].compute_ahead(wanted)
    for one, cache, (first, second) in zip(wanted, caches, expected, strict=True):
        assert len(cache.ahead) == len(one.tokens)
        np.testing.assert_array_equal(through[""].engine.step(ids[8], cache), first)
        if len(one.tokens) == 2:
            np.testing.assert_array_equal(through[""].engine.step(ids[9], cache), second)
    said = {kind: logits.tobytes() for kind, (logits, _) in zip(kinds, expected, strict=True)}
    assert len(set(said.values())) == len(said)


def alone_through(llama: Llama, ids: list[int]) -> list[np.ndarray]:
    """The logits of two steps, in a cache that shares nothing."""
    cache = KVCache(llama.config, llama.max_context, llama.model.rows, llama._cache_dtype, "CPU", llama._shifter, llama._identity)
    cache.model = None if llama.adapters is None else llama.adapters.model
    llama.prefill(ids[:8], cache)
    return [llama.engine.step(token, cache).copy() for token in ids[8:10]]


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("", "all", "odd-rank"), ("rslora", "layers", "dora", ""), ("all", "all", "head", "dora")])
def test_rows_through_other_adapters_are_computed_as_alone(through: dict[str, Llama], kinds: tuple[str, ...]) -> None:
    shares(through, kinds)


@pytest.mark.slow
def test_adapters_as_halves_over_four_bits_are_computed_as_alone(llama: Llama) -> None:
    rng, shapes, found = np.random.default_rng(8), adaptable_shapes(llama.config), {"": llama}
    for rank in (3, 16):
        matrices = {
            name: LowRank(rng.standard_normal((rank, cols), np.float32), rng.standard_normal((rows, rank), np.float32), 0.02)
            for name, (rows, cols) in shapes.items()
            if name.startswith("layers.") and (rank == 3 or "attention" in name)
        }
        found[f"rank {rank}"] = llama.adapted([(Adapter(matrices), 1.0)])
        found[f"rank {rank}"].share_passes(CONVERSATIONS)
    shares(found, ("rank 16", "", "rank 3"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dora-embedding", "saved"])
def test_what_changes_more_than_matrices_has_passes_of_its_own(through: dict[str, Llama], kind: str) -> None:
    ids, own = ids_of(12), through[kind]
    caches = own.new_cache(), own.new_cache(), through[""].new_cache()
    for cache in caches:
        own.prefill(ids[:8], cache)
    assert own.adapters is not None
    one, other = (NextTokens(cache, ids[8:9], own.adapters.model) for cache in caches[:2])
    base = NextTokens(caches[2], ids[8:9], own.model)
    assert own.together(one, other) and not own.together(one, base)
    with pytest.raises(AssertionError):
        own.compute_ahead([one, base])
    own.compute_ahead([one, other])
    for cache in caches[:2]:
        np.testing.assert_array_equal(own.engine.step(ids[8], cache), alone_through(own, ids)[0])


@pytest.mark.slow
def test_an_adapter_shares_no_pass_before_it_is_ready(through: dict[str, Llama], tmp_path: Path) -> None:
    llama = through[""].adapted([(write_adapter(stored_cases()["pattern"], tmp_path / "adapter"), 1.0)])
    ids, cache = ids_of(12), llama.new_cache()
    generation = llama.generate(ids[:9], 4, cache=cache)
    llama.prefill(ids[:8], cache)
    assert cache.arena is not None and generation.upcoming is None  # nothing is captured in the middle of a request
    llama.share_passes(4, 6)
    assert generation.upcoming is not None and llama.together(generation.upcoming, NextTokens(cache, ids[8:9], llama.model))
