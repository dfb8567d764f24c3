"""A LLaMA in tinygrad: ids in, ids out. `from app.models.llama import Llama, SamplingParams`."""

from typing import TYPE_CHECKING, Any

from ext.tinygrad.toolchain import prepare_environment

if TYPE_CHECKING:
    from app.models.llama.llama import Llama
    from app.models.llama.sampling_params import SamplingParams

prepare_environment()  # CPU=1, GPU=1 and the compiler's place must be settled before tinygrad is imported

__all__ = ["Llama", "SamplingParams"]


def __getattr__(name: str) -> Any:
    # imported when asked for: who wants the settings alone need not wait for tinygrad
    if name == "Llama":
        from ext.tinygrad.deferred_imports import light_imports

        with light_imports():
            from app.models.llama.llama import Llama
        globals()[name] = Llama  # once: what is alive by the next time is not to be frozen
        return Llama
    if name == "SamplingParams":
        from app.models.llama.sampling_params import SamplingParams

        return SamplingParams
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
