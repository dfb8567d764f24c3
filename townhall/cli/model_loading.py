"""From flags to a model on a device: the order in which things are checked, opened and reported."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ext.tinygrad.deferred_imports import light_imports
from townhall.adapter_spec import NONE, parse_all, scaled
from townhall.cli import terminal
from townhall.cli.chat_options import ChatOptions
from townhall.default_window import WINDOW, load_llama
from townhall.errors import ModelError
from townhall.language_model import Progress
from townhall.model_cache import ModelCache

TOLERANCE = 1.35  # a "7B" has 6.7 billion parameters, a "30B" 32.5, a "1B" 1.24
BAR_AFTER = 0.3  # seconds of loading


def check_size(size: str, path: Path) -> None:
    """ModelError where the files describe another size: the architecture is theirs to tell, --size only names a folder."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)[bB]", size)
    if found is None:
        return
    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.checkpoint.checkpoint import parameters

    count = parameters(open_checkpoint(path).config)
    wanted = float(found[1]) * 1e9
    if not wanted / TOLERANCE <= count <= wanted * TOLERANCE:
        raise ModelError(f"--size {size} found {path}, which holds {count / 1e9:.3g} billion parameters; put the right weights there")


class Stopwatch:
    """Seconds by name, for --profile."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds under `name`."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def report(self) -> str:
        """A table, one line per name, and what is left of the whole."""
        total = time.perf_counter() - self._started
        rest = total - sum(self.seconds.values())
        rows = [*self.seconds.items(), ("everything else", rest), ("in all", total)]
        return "\n".join(f"{name:<24}{seconds:9.3f} s{seconds / total if total else 0:7.1%}" for name, seconds in rows)


@dataclass
class Loaded:
    """A model that is ready, where it sits, and how long that took."""

    llama: Any  # app.models.llama.Llama, or a double of it
    sampling: Any  # app.models.llama.SamplingParams
    backend: Any  # ext.tinygrad.backend.Backend
    watch: Stopwatch = field(default_factory=Stopwatch)
    path: Path | None = None  # what --model takes for it

    def settings(self, options: ChatOptions) -> dict[str, Any]:
        """All that an answer of this model depends on, for a log: the context window is the one that it came to have."""
        return options.that_matter() | {"max_context": self.llama.max_context}


def load(
    options: ChatOptions, fit: bool = False, serve: bool = False, device: str | None = None, progress: Progress | None = None
) -> Loaded:
    """Cheap checks first; then the device is opened and named on stderr, then the weights are placed with a progress bar.

    With `fit` the options' context window is made to fit the model where it is larger, though the options name it. With `serve` it is left
    to the server for how many conversations passes are made ready. `device` is another one than tinygrad's default; `progress` is called
    with bytes done and bytes in all.
    """
    if options.fake:
        return _load_fake(options)
    path, adapters = options.model_path(), scaled(parse_all(options.lora))
    watch = Stopwatch()
    with watch.lap("import"), light_imports():
        from ext.tinygrad.device_selection import select
        from ext.tinygrad.toolchain import prepare_environment

        select(options.device)
        prepare_environment()  # before tinygrad is imported: it reads the environment then
        sampling = options.sampling()
        from ext.tinygrad.backend import open_backend
        from ext.tinygrad.bandwidth import bandwidth
    if options.size:
        check_size(options.size, path)
    with watch.lap("open the device"):
        backend = open_backend(require=options.require)
    with watch.lap("load the weights"), _progress_bar(path.name) as bar:
        moved, others = _both(bar, progress), {"quantize": options.quantize is not None, "device": device, "kv": options.kv}
        llama = load_llama(path, options.max_context, terminal.note, fit, progress=moved, stop=options.eos, **others)
    with watch.lap("load the adapters"):
        llama = llama.adapted(adapters)
    if options.speculate or options.draft:
        with watch.lap("make speculation ready"):
            _speculate(llama, options, serve)
    if unknown := llama.config.unknown_keys:
        terminal.note(f"config.json of {path.name} has keys that Townhall does not know and passes over: {', '.join(unknown)[:200]}")
    if options.quantize:
        terminal.note(
            f"--quantize {options.quantize}: {llama.quantised} matrices were made 8-bit integers"
            if llama.quantised
            else f"--quantize {options.quantize} changes nothing: {path.name} holds no float matrices"
        )
    backend = llama.backend  # read from the device that holds the weights
    with watch.lap("time the device"):
        backend = replace(backend, bandwidth=bandwidth([t for weight in llama.model.weights for t in weight.tensors]))
    terminal.note(f"{path.name} on {backend.describe()}; it reads the weights at {backend.bandwidth / 1e9:.1f} GB/s")
    show_compiling()
    return Loaded(llama, sampling, backend, watch, path)


def _both(bar: Progress, progress: Progress | None) -> Progress:
    def moved(done: int, total: int) -> None:
        bar(done, total)
        if progress:
            progress(done, total)

    return moved


def _speculate(llama: Any, options: ChatOptions, serve: bool) -> None:
    """ModelError where --speculate and --draft, or --draft and the model, do not go together."""
    from app.models.llama.speculation import MOST_GUESSES, PromptLookup

    if options.draft is None:
        llama.speculate(PromptLookup)
    else:
        if options.speculate:
            raise ModelError("--speculate and --draft both say how tokens are guessed; pass one of them")
        if not options.draft.exists():
            raise ModelError(f"--draft {options.draft} does not exist; pass the path of a model")
        llama.draft_with(load_llama(options.draft, llama.max_context, terminal.note, fit=True))
    if not serve:
        llama.share_passes(2, MOST_GUESSES + 1)  # a chat's cache, and one for its notes
    if not llama.model.kernels.row_sizes(llama.config.head_dim):
        terminal.note("--speculate and --draft change nothing here: these kernels have no passes that verify guesses")


def resampled(loaded: Loaded, options: ChatOptions) -> Loaded:
    """The same model for options that may draw ids in another way, or have other adapters; the same object where they do not."""
    sampling, llama = options.sampling(), loaded.llama
    adapters = scaled(parse_all(options.lora))
    if adapters or getattr(llama, "adapters", None) is not None:  # a double has none
        llama = llama.adapted(adapters)
    return loaded if sampling == loaded.sampling and llama is loaded.llama else replace(loaded, sampling=sampling, llama=llama)


def open_models() -> ModelCache[ChatOptions, Loaded]:
    """What a program that changes between models asks for them."""
    return ModelCache(load, resampled)


def _load_fake(options: ChatOptions) -> Loaded:
    """A double: nothing of the real model is imported."""
    from townhall.fake.fake_model import open_fake

    if options.require == "gpu":
        raise ModelError(f"--require gpu: {options.model} runs on no device at all; pass a real model")
    refuse_adapters(options)
    watch = Stopwatch()
    with watch.lap("import"):
        sampling = options.sampling()
    model = open_fake(options.model or "", options.max_context or WINDOW)
    terminal.note(f"{options.model}: {model.backend.describe()}")
    return Loaded(model, sampling, model.backend, watch, options.model)


def refuse_adapters(options: ChatOptions) -> None:
    """ModelError where a double is asked to take adapters."""
    if any(text != NONE for text in options.lora):
        raise ModelError(f"--lora needs weights to lay an adapter over, and {options.model} has none; pass a real model")


def show_compiling() -> None:
    """From now on, say on a line of stderr when kernels have to be compiled: the first start only."""
    from ext.tinygrad.graph import compiling

    compiling.listener = lambda done, total: terminal.progress(
        f"compiling kernels for this processor, this once: {done} of {total}" if done < total else ""
    )


@contextmanager
def _progress_bar(name: str) -> Iterator[Any]:
    """A callback (bytes done, bytes in all) that moves a bar on stderr; none is drawn where stderr is no terminal, or all is soon done."""
    bar: Any = None
    started = time.monotonic()

    def move(done: int, total: int) -> None:
        nonlocal bar
        if bar is None and sys.stderr.isatty() and time.monotonic() - started > BAR_AFTER:
            from tqdm import tqdm  # its import takes longer than a small model does

            bar = tqdm(desc=name, total=total, unit="B", unit_scale=True, unit_divisor=1024, leave=False)
        if bar is not None:
            bar.update(done - bar.n)

    try:
        yield move
    finally:
        if bar is not None:
            bar.close()
