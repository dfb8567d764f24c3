"""What a GGUF of any family holds: its tensors under llama.cpp's names and in its order of rows, and its metadata."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import gguf
import numpy as np

from app.models.llama.checkpoint.checkpoint import Checkpoint, StoredMatrix, adjacent_entries
from app.models.llama.checkpoint.files import CheckpointError
from app.models.llama.checkpoint.names import GGUF_FUSED, gguf_from_canonical
from app.models.llama.checkpoint.quantization import encoded
from app.models.llama.config import LlamaConfig
from app.models.llama.config_gguf import ARCHITECTURES, has_window
from app.models.llama.rope_scaling import yarn_scale
from ext.tinygrad.kernels.matrix import QuantMatrix

# transformers' model types → llama.cpp's architectures, where they differ
ARCHITECTURE_OF = {"mistral": "llama", "mixtral": "llama", "qwen3_moe": "qwen3moe", "gemma3_text": "gemma3", "cohere": "command-r"}
FREQUENCY_TENSORS = ("llama",)  # architectures that read rope_freqs.weight


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the file: `parts` of the checkpoint one below the other."""

    checkpoint: Checkpoint
    name: str
    parts: tuple[str, ...]
    shape: tuple[int, ...]
    half_split: bool

    def blocks(self, kind: gguf.GGMLQuantizationType, pool: ThreadPoolExecutor) -> Iterator[np.ndarray]:
        """Its bytes in that type, some rows at a time."""
        for part in self.parts:
            source = _Rows(self.checkpoint, part, self._order(part))
            if len(self.shape) == 1:
                yield np.ascontiguousarray(source.vector(), np.float32)
            else:
                yield from encoded(source, part, kind, pool)

    def _order(self, part: str) -> np.ndarray | None:
        """Where each row comes from: RoPE's pairs lie side by side in a checkpoint that was read."""
        config = self.checkpoint.config
        order = adjacent_entries(part, self.checkpoint.stored(part).shape[0], config.head_dim, config.rope_dim)
        return np.argsort(order) if order is not None and self.half_split else None


class _Rows:
    """A tensor of a checkpoint with its rows in another order."""

    def __init__(self, checkpoint: Checkpoint, name: str, order: np.ndarray | None):
        self._checkpoint, self._name, self._order = checkpoint, name, order

    def stored(self, name: str) -> StoredMatrix:
        return self._checkpoint.stored(name)

    @cached_property
    def _whole(self) -> QuantMatrix:
        return self._checkpoint.matrix(self._name)

    def matrix(self, name: str, wanted: slice = slice(None)) -> QuantMatrix:
        if self._order is None:
            return self._checkpoint.matrix(name, wanted)
        data = self._whole.data[self._order[wanted]]
        return QuantMatrix(self._whole.type, (len(data), self._whole.shape[1]), data)

    def vector(self) -> np.ndarray:
        values = self._checkpoint.vector(self._name)
        return values if self._order is None else values[self._order]


@dataclass(frozen=True)
class Plan:
    """A file to be written."""

    checkpoint: Checkpoint
    architecture: str
    tensors: list[PlannedTensor]
    computed: dict[str, np.ndarray]  # RoPE's factors


def plan_gguf(checkpoint: Checkpoint) -> Plan:
    """CheckpointError for what GGUF has no way to say."""
    config = checkpoint.config
    architecture = ARCHITECTURE_OF.get(config.architecture, config.architecture)
    _refuse_unspeakable(config, architecture)
    about, tensors = ARCHITECTURES[architecture], []
    for name in sorted(checkpoint.tensor_names, key=_order):
        whole = next((key for key, names in GGUF_FUSED.items() if about.fused and name.split(".", 2)[-1] in names), None)
        parts: tuple[str, ...] = (name,)
        if whole:
            layer = name.split(".")[1]
            parts = tuple(f"layers.{layer}.{part}" for part in GGUF_FUSED[whole])
            if name != parts[0]:
                continue  # the first brings the others along
        gguf_name = f"blk.{layer}.{whole}" if whole else gguf_from_canonical(name)
        shape = checkpoint.stored(name).shape
        shape = (sum(checkpoint.stored(part).shape[0] for part in parts), *shape[1:])
        if config.traits.experts and ".experts." in name:
            shape = (config.traits.experts.count, shape[0] // config.traits.experts.count, shape[1])
        tensors.append(PlannedTensor(checkpoint, gguf_name, parts, shape, about.half_split))
    return Plan(checkpoint, architecture, tensors, _factors(config, architecture))


def _factors(config: LlamaConfig, architecture: str) -> dict[str, np.ndarray]:
    factors = np.array(config.rope_factors, np.float32)
    if config.traits.long_rope is not None:
        long = np.array(config.traits.long_rope.long_factors, np.float32)
        return {"rope_factors_long.weight": long, "rope_factors_short.weight": factors}
    return {"rope_freqs.weight": factors} if len(factors) and architecture in FREQUENCY_TENSORS else {}


def _refuse_unspeakable(config: LlamaConfig, architecture: str) -> None:
    t = config.traits
    faults = {
        "experts whose shares do not sum to 1": t.experts is not None and not t.experts.normalize,
        "other layers without RoPE than every fourth": bool(t.unrotated) and t.unrotated != tuple(range(3, config.n_layers, 4)),
        "frequencies that are stretched one by one": len(set(config.rope_factors)) > 1
        and architecture not in FREQUENCY_TENSORS
        and t.long_rope is None
        and t.yarn is None,
        # llama.cpp reads them of other architectures only
        "betas of YaRN other than 32 and 1": t.yarn is not None
        and architecture not in FREQUENCY_TENSORS
        and (t.yarn.beta_fast, t.yarn.beta_slow) != (32, 1),
    }
    for feature, asked in faults.items():
        if asked:
            raise CheckpointError(f"the model has {feature}, which a GGUF of the architecture {architecture} cannot say; use it as it is")


def write_config(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    """The model's sizes and traits under llama.cpp's keys."""
    c, t, architecture = config, config.traits, writer.arch
    writer.add_vocab_size(c.vocab_size)
    writer.add_context_length(c.context_length)
    writer.add_embedding_length(c.dim)
    writer.add_block_count(c.n_layers)
    writer.add_feed_forward_length(c.hidden_dim)
    writer.add_head_count(c.n_heads)
    writer.add_head_count_kv(c.n_kv_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    (writer.add_layer_norm_eps if t.layer_norm else writer.add_layer_norm_rms_eps)(c.norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_rope_dimension_count(c.rope_dim)
    yarn = t.yarn if architecture not in FREQUENCY_TENSORS else None
    if yarn is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(yarn.factor)
        writer.add_rope_scaling_orig_ctx_len(yarn.original)
    scale = c.rope_scale / (yarn_scale(yarn.factor) if yarn is not None else 1)  # YaRN's own is in its name
    if abs(scale - 1) > 1e-7:
        writer.add_rope_scaling_attn_factors(scale)
    if c.rope_factors and architecture not in FREQUENCY_TENSORS and t.long_rope is None and yarn is None:  # all are equal
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(c.rope_factors[0])
    if t.long_rope is not None:
        writer.add_rope_scaling_orig_ctx_len(t.long_rope.original)
    if t.windows:
        writer.add_sliding_window(max(t.windows))
        if any((window > 0) != has_window(architecture, layer) for layer, window in enumerate(t.windows)):
            writer.add_sliding_window_pattern([window > 0 for window in t.windows])
    if t.local_rope is not None:
        writer.add_float32(f"{architecture}.rope.freq_base_swa", t.local_rope.theta)
    if t.attention_softcap:
        writer.add_attn_logit_softcapping(t.attention_softcap)
    if t.logit_softcap:
        writer.add_final_logit_softcapping(t.logit_softcap)
    if t.attention_scale:
        writer.add_attention_scale(t.attention_scale)
    if architecture == "granite":
        writer.add_embedding_scale(t.embedding_scale)
        writer.add_residual_scale(t.residual_scale)
    if t.logit_scale != 1:  # Granite's is what logits are divided by
        writer.add_logit_scale(1 / t.logit_scale if architecture == "granite" else t.logit_scale)
    if architecture == "stablelm":
        writer.add_parallel_residual(t.parallel)
    if t.experts is not None:
        writer.add_expert_count(t.experts.count)
        writer.add_expert_used_count(t.experts.used)
        writer.add_expert_feed_forward_length(t.experts.hidden_dim)


def _order(name: str) -> tuple[int, str]:
    """Embedding, layers by number, the rest."""
    match = re.match(r"layers\.(\d+)\.", name)
    return (int(match[1]) if match else -1 if name.startswith("tok") else 1 << 20), name
