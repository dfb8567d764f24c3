"""A model is loaded once; what the machine has no room for goes, the least recently used first, and its memory with it."""

import gc
import weakref
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from tests.reference.tiny import make_tiny_gguf
from townhall.cli.chat_options import ChatOptions
from townhall.cli.model_loading import load
from townhall.errors import ModelError
from townhall.model_cache import ModelCache, weights

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Asked:
    """A model of so many bytes; `flavour` is another sampling of the same."""

    name: str
    size: int = 10
    device: str | None = None
    flavour: str = ""

    def model_key(self):
        return self.name

    def model_bytes(self):
        return self.size


class Loaded:
    def __init__(self, asked):
        self.asked = asked
        self.llama = SimpleNamespace(model=SimpleNamespace(nbytes=asked.size), device="CPU")


@pytest.fixture
def loads():
    return []


@pytest.fixture
def cache(loads):
    def load_one(asked):
        loads.append(asked.name)
        return Loaded(asked)

    return ModelCache(load_one, budget=30)


def names(cache):
    return [loaded.asked.name for loaded in cache]


def test_the_same_model_is_the_same_object_and_is_loaded_once(cache, loads):
    first = cache.open(Asked("a"))
    assert cache.open(Asked("b")) is not first and cache.open(Asked("a", flavour="hot")) is first
    assert loads == ["a", "b"] and Asked("a") in cache and Asked("c") not in cache and names(cache) == ["a", "b"]


def test_the_least_recently_used_goes_first_and_the_one_in_use_never(cache, loads):
    for name in "abca":
        cache.open(Asked(name))
        cache.settle()
    assert names(cache) == ["a", "c", "b"] and cache.nbytes == 30
    cache.open(Asked("d"))
    assert names(cache) == ["d", "a", "c"]
    cache.settle()
    cache.open(Asked("large", 100))
    assert names(cache) == ["large", "d"]  # somebody talks to d until the new one is there
    cache.settle()
    assert names(cache) == ["large"]
    cache.settle()
    assert names(cache) == ["large"] and loads == ["a", "b", "c", "d", "large"]


def test_a_model_that_cannot_be_loaded_leaves_the_one_in_use(cache):
    mine = cache.open(Asked("a"))
    cache._load = lambda asked: (_ for _ in ()).throw(ModelError("no such file"))
    with pytest.raises(ModelError):
        cache.open(Asked("b"))
    assert cache.open(Asked("a")) is mine


def test_where_memory_ends_early_the_others_go_and_it_is_tried_again(cache):
    cache.open(Asked("a"))
    cache.open(Asked("b"))
    cache.settle()
    loader, full = cache._load, [MemoryError()]

    def load_late(asked):
        if full:
            raise full.pop()
        return loader(asked)

    cache._load = load_late
    cache.open(Asked("c"))
    assert names(cache) == ["c", "b"]
    cache.settle()
    full += [MemoryError(), MemoryError()]
    with pytest.raises(MemoryError):
        cache.open(Asked("d"))
    assert names(cache) == ["c"]


def test_another_device_is_refused(cache):
    cache.open(Asked("a"))
    with pytest.raises(ModelError, match="--device CL: the device cannot change while the program runs"):
        cache.open(Asked("b", device="CL"))


def test_real_models_are_reused_and_freed_when_there_is_no_room(tmp_path):
    files = [make_tiny_gguf(tmp_path / f"{n}.gguf", n_kv_heads=2, dim=128) for n in range(2)]
    first, second = (ChatOptions(model=file, max_context=200, seed=1) for file in files)
    cache = ModelCache(load)
    loaded = cache.open(first)
    prompt = loaded.llama.tokenizer.encode("Hello there")
    said = list(loaded.llama.generate(prompt, 8, first.sampling()))
    assert len(cache) == 1 and cache.nbytes == weights(loaded) > 100_000
    cache.open(second)
    assert cache.open(first) is loaded and list(loaded.llama.generate(prompt, 8, first.sampling())) == said
    assert cache.open(ChatOptions(model=files[0], max_context=100)).llama is not loaded.llama and len(cache) == 3
    buffer = weakref.ref(loaded.llama.model.weights[0].tensors[0].uop.base.realized)
    cache.settle()
    del loaded
    gc.collect()
    assert buffer() is not None  # kept, for there is room
    cache.budget = 1
    cache.settle()
    gc.collect()
    assert len(cache) == 1 and buffer() is None
