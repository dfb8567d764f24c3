"""The engine against a plain NumPy LLaMA: one prefill, token by token, prefixes kept, windows that end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.models.llama import Llama, SamplingParams, engine
from app.models.llama.engine import ContextOverflow
from app.models.llama.forward import Pass
from app.models.llama.pass_sizes import CHUNKS, LONGEST, PIECE, chunk_for, chunks_of, pass_tokens_of, pieces_of
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.gpu.cpu_driver import CPUDriverKernels
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference import llama_numpy
from tests.reference.tiny import make_tiny_gguf

pytestmark = pytest.mark.slow

Load = Callable[..., Llama]
IDS = [int(i) for i in np.random.default_rng(5).integers(0, 250, 200)]
SOON = 1e-6  # seconds of a token: as good as nothing, but known
NO_STOPS: frozenset[int] = frozenset()


def reference(path: Path, ids: list[int]) -> np.ndarray:
    return llama_numpy.logits(ids, *llama_numpy.read_gguf(path))


@pytest.mark.sweep
@pytest.mark.parametrize("n_kv_heads", [2, 4], ids=["gqa", "no-gqa"])
def test_one_prefill_agrees_with_numpy(place: tuple[str, str], n_kv_heads: int, tiny_llama: Load, tiny_file: Callable[[int], Path]) -> None:
    llama = tiny_llama(*place, n_kv_heads)
    np.testing.assert_allclose(llama.logits(IDS[:70]), reference(tiny_file(n_kv_heads), IDS[:70]), atol=1e-4)


@pytest.mark.sweep
@pytest.mark.parametrize("n_kv_heads", [2, 4], ids=["gqa", "no-gqa"])
def test_token_by_token_agrees_with_numpy(
    place: tuple[str, str], n_kv_heads: int, tiny_llama: Load, tiny_file: Callable[[int], Path]
) -> None:
    llama = tiny_llama(*place, n_kv_heads)
    cache = llama.new_cache()
    steps = np.stack([llama.engine.step(token, cache).copy() for token in IDS[:20]])
    np.testing.assert_allclose(steps, reference(tiny_file(n_kv_heads), IDS[:20]), atol=1e-4)


@pytest.mark.sweep
@pytest.mark.parametrize("n", [1, 32, 33, 200])
def test_hidden_states_agree_with_numpy(place: tuple[str, str], n: int, tiny_llama: Load, tiny_file: Callable[[int], Path]) -> None:
    llama = tiny_llama(*place)
    cache = llama.new_cache()
    llama.prefill(IDS[5:9], cache)  # another text, of which nothing may stay
    found = np.concatenate(list(llama.hidden(IDS[:n], cache)))
    expected = llama_numpy.hidden(IDS[:n], *llama_numpy.read_gguf(tiny_file(2)))
    assert found.dtype == np.float32 and cache.tokens == IDS[:n]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(ContextOverflow):
        next(llama.hidden(IDS + [1], cache))


@pytest.mark.parametrize("device", ["CL"], indirect=True)
def test_a_model_with_the_kernels_of_a_gpu_agrees_with_numpy(device: str, tiny_llama: Load, tiny_file: Callable[[int], Path]) -> None:
    llama, expected = tiny_llama(device, "gpu"), reference(tiny_file(2), IDS[:137])
    cache = llama.new_cache()
    llama.prefill(IDS[:130], cache)
    steps = np.stack([llama.engine.step(token, cache).copy() for token in IDS[130:137]])
    np.testing.assert_allclose(steps, expected[130:], atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 31, 32, 33, 127, 128, 129, 160, 199])
def test_decoding_goes_on_from_a_prefill_of_any_length(n: int, tiny_llama: Load, tiny_file: Callable[[int], Path]) -> None:
    llama = tiny_llama()
    cache = llama.new_cache()
    llama.prefill(IDS[:n], cache)
    assert cache.tokens == IDS[:n]
    np.testing.assert_allclose(llama.engine.step(IDS[n], cache), reference(tiny_file(2), IDS[: n + 1])[-1], atol=1e-4)


CUTS = [(), (1,), (2, 3, 4), (31, 33), (64, 65), (100,), (127, 129), (160, 161, 163), (196,), (198,)]


def after_cuts(llama: Llama, ids: list[int], all_cuts: list[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """The logits of the last of `ids` after prefills of those before it, interrupted at each of these positions."""
    for cuts in all_cuts:
        cache = llama.new_cache()
        for n in (*cuts, len(ids) - 1):
            llama.prefill(ids[:n], cache)
        yield cuts, llama.engine.step(ids[-1], cache).copy()


@pytest.mark.parametrize("device", ["CPU", "CL"], indirect=True)
def test_however_a_prompt_is_cut_its_entries_are_the_same_to_the_last_bit(device: str, tiny_llama: Load) -> None:
    """What somebody else's prompt left in the cache must not decide what a seed says."""
    llama = tiny_llama(device, {"CPU": "fused", "CL": "gpu"}[device])
    (_, first), *others = after_cuts(llama, IDS, CUTS)
    for cuts, logits in others:
        np.testing.assert_array_equal(logits, first, err_msg=f"cut at {cuts}")


# cuts, and the passes between them: of the kernels for GPUs, then of those on an OpenCL driver for the CPU
LARGE_PASSES = {
    # whole; 40 and then 559; from 330 on too few rows are left for a padded pass of 512; shorter ones only
    "gpu": ([(), (40,), (330,), (128, 256, 384, 512)], [512, 128] + [32, 32, 512, 32, 32] + [512, 128, 128, 32] + [128] * 5),
    "fused": ([(), (40,), (128, 256, 384, 512)], [512, 32, 32, 32] + [32, 32, 512, 32, 32] + [128] * 4 + [32] * 3),
}


@pytest.mark.parametrize("kernels", LARGE_PASSES)
@pytest.mark.parametrize("device", ["CL"], indirect=True)
def test_a_large_pass_leaves_the_entries_that_shorter_ones_leave(
    device: str, kernels: str, tiny_llama: Load, tiny_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    llama, ids = tiny_llama(device, kernels, max_context=700), (IDS * 4)[:600]
    cuts, expected = LARGE_PASSES[kernels]
    taken: list[int] = []
    timed = llama.engine._timed

    def counted(run: Pass, *given: Any) -> None:
        taken.append(run.T)
        timed(run, *given)

    monkeypatch.setattr(llama.engine, "_timed", counted)
    monkeypatch.setattr("app.models.llama.pass_sizes.LONGEST", float("inf"))  # on a busy machine a pass of 512 takes longer
    (_, first), *others = after_cuts(llama, ids, cuts)
    assert taken == expected
    np.testing.assert_allclose(first, reference(tiny_file(2), ids)[-1], atol=1e-4)
    for cuts, logits in others:
        np.testing.assert_array_equal(logits, first, err_msg=f"cut at {cuts}")


def test_no_prompt_length_compiles_a_new_graph(tiny_llama: Load) -> None:
    graphs = {id(graph) for graph in [*tiny_llama().engine._prefill.values()]}
    for n in (3, 40, 77, 150, 199):
        tiny_llama().prefill(IDS[:n], tiny_llama().new_cache())
    assert {id(graph) for graph in tiny_llama().engine._prefill.values()} == graphs and len(graphs) == len(tiny_llama().engine.chunks)


@pytest.mark.parametrize(
    "tokens, seconds, chunk",
    [(500, 0.0, 128), (128, 0.0, 128), (65, 0.0, 128), (64, 0.0, 32), (1, 0.0, 32)]
    + [(500, LONGEST / 128, 128), (500, LONGEST / 127, 32), (65, LONGEST / 127, 32), (500, LONGEST / 32, 32), (500, 60.0, 32)],
)
def test_a_pass_is_as_long_as_it_may_take(tokens: int, seconds: float, chunk: int) -> None:
    assert chunk_for(tokens, seconds, CHUNKS, 1000) == chunk


@pytest.mark.parametrize("tokens, seconds, chunk", [(500, 0.0, 8), (500, 0.001, 32), (500, 0.01, 8), (500, 0.0001, 128), (5, 0.001, 8)])
def test_while_others_wait_a_pass_is_as_long_as_they_may(tokens: int, seconds: float, chunk: int) -> None:
    assert chunk_for(tokens, seconds, (*CHUNKS, PIECE), 1000, 0.06) == chunk


@pytest.mark.parametrize(
    "tokens, chunks, chunk",
    [(70, (128, 32, 8), 32), (110, (128, 32, 8), 32), (120, (128, 32, 8), 128), (70, CHUNKS, 32), (100, CHUNKS, 128)]
    + [(38, (128, 32, 8), 32), (20, (128, 32, 8), 8), (25, (128, 32, 8), 32), (6, (128, 32, 8), 8), (3, CHUNKS, 32)],
)
def test_a_remainder_is_padded_where_that_costs_less_than_passes_that_it_fills(tokens: int, chunks: tuple[int, ...], chunk: int) -> None:
    assert chunk_for(tokens, 0.0, chunks, 1000, overhead=3) == chunk


@pytest.mark.parametrize("type", ["Q8_0", "Q4_1"])
def test_a_prompt_in_small_pieces_leaves_what_large_ones_do(type: str, tmp_path: Path) -> None:
    llama = Llama.load(make_tiny_gguf(tmp_path / "tiny.gguf", type=type, dim=256, hidden_dim=256), 256, device="CPU")
    whole, pieces = llama.new_cache(), llama.new_cache()
    llama.prefill(IDS[:99], whole)
    llama.patience = 0.0
    assert llama.pass_tokens(99, pieces) == PIECE
    llama.prefill(IDS[:99], pieces)
    expected, found = whole.entries(99), pieces.entries(99)
    for name, entries in expected.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], entries, err_msg=name)


@pytest.mark.parametrize("type", ["F32", "Q4_1"])
def test_a_prompt_in_large_passes_leaves_what_small_ones_do(type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADS", "2")
    path = make_tiny_gguf(tmp_path / "tiny.gguf", type=type, dim=256, hidden_dim=256, context_length=1024)
    llama, ids = Llama.load(path, 1024, device="CPU"), IDS * 5
    small, large = llama.new_cache(), llama.new_cache()
    assert llama.pass_tokens(1000, small) == 128  # nothing is known of this model's speed
    with monkeypatch.context() as changed:
        changed.setattr(llama.engine, "chunks", (128, 32))
        llama.prefill(ids, small)
    for patience, tokens in ((None, 512), (LONGEST, 512), (0.9 * LONGEST, 128)):  # with others waiting, a pass is one span
        llama.patience = patience
        assert llama.pass_tokens(1000, large) == tokens
    llama.patience = None
    llama.prefill(ids, large)
    expected, found = small.entries(1000), large.entries(1000)
    for name, entries in expected.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], entries, err_msg=name)


def test_float_matrices_are_read_in_the_usual_pieces(tiny_llama: Load) -> None:
    assert tiny_llama().engine.pieces == tiny_llama().engine.chunks


@pytest.mark.parametrize(
    "tokens, seconds, room, chunk",
    [(600, SOON, 600, 512), (512, SOON, 512, 512), (257, SOON, 512, 512), (256, SOON, 512, 128), (1, SOON, 512, 32)]
    + [(600, SOON, 511, 128), (257, SOON, 511, 128), (128, SOON, 128, 128), (65, SOON, 128, 128)]
    + [(600, 0.0, 600, 128), (257, 0.0, 512, 128), (20, 0.0, 512, 32)]
    + [(600, LONGEST / 512, 600, 512), (600, LONGEST / 511, 600, 128), (600, LONGEST / 127, 600, 32)],
)
def test_a_large_pass_is_taken_where_its_time_is_known_and_the_cache_has_rows(tokens: int, seconds: float, room: int, chunk: int) -> None:
    assert chunk_for(tokens, seconds, (512, 128, 32), room) == chunk


def test_a_kernel_set_has_the_chunks_that_it_names_as_far_as_a_cache_holds_them(tiny_llama: Load) -> None:
    class Large(ReferenceKernels):
        chunks = (512, 128, 32)

    assert chunks_of(Large(), 512) == (512, 128, 32) and chunks_of(Large(), 511) == (128, 32)
    assert chunks_of(ReferenceKernels(), 1000) == CHUNKS
    assert pieces_of(Large(), (512, 128, 32), []) == (512, 128, 32) and pass_tokens_of(Large()) is None


@pytest.mark.parametrize("threads, chunks", [("1", (128, 32)), ("2", (512, 256, 128, 32)), ("16", (512, 256, 128, 32))])
def test_threads_share_larger_passes(threads: str, chunks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADS", threads)
    kernels = CPUKernels()
    assert chunks_of(kernels, 1000) == chunks and pieces_of(kernels, chunks, []) == (*chunks, PIECE)


def test_an_opencl_driver_for_the_cpu_has_large_passes_and_says_what_one_costs() -> None:
    kernels = CPUDriverKernels()
    assert (chunks := chunks_of(kernels, 1000)) == (512, 256, *CHUNKS)
    assert pieces_of(kernels, chunks, []) == (512, 256, *CHUNKS, PIECE)
    assert chunk_for(130, SOON, chunks, 1000, overhead=pass_tokens_of(kernels)) == 128  # and 32 more: not half a pass of 256
    assert chunk_for(255, SOON, chunks, 1000, overhead=pass_tokens_of(kernels)) == 256
    assert chunk_for(400, SOON, chunks, 1000, overhead=pass_tokens_of(kernels)) == 256  # and 128 and 32 more


def test_a_slow_model_reads_in_shorter_passes_until_it_is_fast_again(tiny_llama: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    now, token = 0.0, 0.02  # seconds, on a clock of the test's own
    ran: list[int] = []

    class Timed:
        """Computes nothing, and takes the time of a pass; before its first one, of a compiler."""

        def __init__(self, T: int):
            self.T, self.compiled = T, False

        def prepared(self, cache: object) -> bool:
            return self.compiled

        def __call__(self, ids: list[int], start_pos: int, cache: object) -> None:
            nonlocal now
            now += self.T * token + (0.0 if self.compiled else 12.0)
            self.compiled = True
            ran.append(self.T)

    llama = tiny_llama()
    monkeypatch.setattr(engine, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(llama.engine, "_prefill", {T: Timed(T) for T in CHUNKS})
    monkeypatch.setattr(llama.engine, "_seconds", 0.0)

    def passes(n: int) -> list[int]:
        ran.clear()
        cache = llama.new_cache()
        llama.prefill(IDS[:n], cache)
        assert cache.tokens == IDS[:n]
        return list(ran)

    assert passes(160) == [128, 32]  # what the compiler took says nothing
    assert passes(190) == [128, 32, 32]  # 2.6 s, and 0.6 s twice
    assert passes(190) == [32] * 6
    token = 0.001
    assert passes(190) == [32, 128, 32]


def test_the_common_prefix_is_kept_and_only_the_rest_is_computed(tiny_llama: Load) -> None:
    llama = tiny_llama()
    cache = llama.new_cache()
    assert llama.prefill(IDS[:100], cache).cached_tokens == 0
    other = [*IDS[:60], *reversed(IDS[60:90])]
    done: list[tuple[int, int]] = []
    stats = llama.prefill(other, cache, lambda *progress: done.append(progress))
    assert (stats.cached_tokens, stats.prompt_tokens) == (60, 90) and cache.tokens == other
    assert done[-1] == (30, 30)
    fresh = llama.new_cache()
    llama.prefill(other, fresh)
    np.testing.assert_allclose(llama.engine.step(7, cache).copy(), llama.engine.step(7, fresh), atol=1e-4)


def test_two_conversations_do_not_disturb_each_other(tiny_llama: Load) -> None:
    llama = tiny_llama()
    alone = list(llama.generate(IDS[:20], 12, stop_ids=NO_STOPS))
    first, second = llama.new_cache(), llama.new_cache()
    one, two = llama.generate(IDS[:20], 12, cache=first, stop_ids=NO_STOPS), llama.generate(IDS[50:90], 12, cache=second, stop_ids=NO_STOPS)
    mixed = [ids for pair in zip(one, two, strict=True) for ids in pair]
    assert mixed[::2] == alone


def test_a_reply_that_reaches_the_window_ends_with_length(tiny_llama: Load) -> None:
    llama = tiny_llama()
    generation = llama.generate(IDS[:190], 100, stop_ids=NO_STOPS)
    assert len(list(generation)) == 11  # positions 190 … 199 are read, the last one is asked what comes after it
    assert generation.finish_reason == "length" and generation.tokens == 11


@pytest.mark.parametrize("n", [199, 200])
def test_a_prompt_may_fill_the_window(n: int, tiny_llama: Load) -> None:
    assert len(list(tiny_llama().generate(IDS[:n], 100, stop_ids=NO_STOPS))) == 201 - n


@pytest.mark.parametrize("n", [201, 400])
def test_a_prompt_beyond_the_window_is_refused_with_the_numbers(n: int, tiny_llama: Load) -> None:
    llama = tiny_llama()
    with pytest.raises(ContextOverflow, match=f"{n} tokens do not fit the context window of 200") as caught:
        llama.generate((IDS * 2)[:n], 5)
    assert (caught.value.needed, caught.value.capacity) == (n, 200)
    with pytest.raises(ContextOverflow):
        llama.prefill((IDS * 2)[:n], llama.new_cache())
    with pytest.raises(ContextOverflow):
        llama.logits((IDS * 2)[:n])


def test_a_stop_id_ends_a_reply_and_is_not_yielded(tiny_llama: Load) -> None:
    llama = tiny_llama()
    free = list(llama.generate(IDS[:20], 12, stop_ids=NO_STOPS))
    generation = llama.generate(IDS[:20], 12, stop_ids=frozenset({free[5]}))
    assert list(generation) == free[: free.index(free[5])] and generation.finish_reason == "stop"


def test_ids_that_are_forced_come_next_and_the_rest_follows_them(tiny_llama: Load) -> None:
    llama = tiny_llama()
    generation = llama.generate(IDS[:10], 8, stop_ids=NO_STOPS)
    first = [next(generation), next(generation)]
    generation.force([7, 8])
    rest = list(generation)
    assert rest[:2] == [7, 8] and len(rest) == 6
    assert rest[2:] == list(llama.generate([*IDS[:10], *first, 7, 8], 4, stop_ids=NO_STOPS))


def test_closing_a_generation_keeps_what_was_read(tiny_llama: Load) -> None:
    llama = tiny_llama()
    cache = llama.new_cache()
    generation = llama.generate(IDS[:20], 50, cache=cache, stop_ids=NO_STOPS)
    said = [next(generation) for _ in range(5)]
    generation.close()
    assert list(generation) == [] and generation.finish_reason is None
    assert cache.tokens == [*IDS[:20], *said[:-1]]


def test_the_same_seed_gives_the_same_text(tiny_llama: Load) -> None:
    llama = tiny_llama()

    def text(seed: int) -> list[int]:
        return list(llama.generate(IDS[:20], 20, SamplingParams(temperature=1.0, seed=seed), stop_ids=NO_STOPS))

    assert text(1) == text(1) != text(2)
