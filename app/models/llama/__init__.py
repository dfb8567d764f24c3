"""A LLaMA in tinygrad: ids in, ids out. `from app.models.llama import Llama, Sampling`."""

from ext.tinygrad.toolchain import prepare_environment

prepare_environment()  # CPU=1, GPU=1 and the compiler's place must be settled before tinygrad is imported

from app.models.llama.llama import Llama, Sampling  # noqa: E402

__all__ = ["Llama", "Sampling"]
