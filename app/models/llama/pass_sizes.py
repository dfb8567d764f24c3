"""How many tokens of a prompt a pass takes."""

from collections.abc import Iterable

from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import Kernels, PackedWeight

CHUNKS = (128, 32)  # tokens a prefill pass takes, where a kernel set has no `chunks`; every prompt is cut into these, the last piece padded
PIECE = 8  # tokens of the smallest pass of a prompt: only where passes must be short, since one more has to be captured
LONGEST = 1.0  # seconds of a pass, as far as the chunks allow: nothing can interrupt one, and Ctrl-C, or a server's other client, waits


def chunks_of(kernels: Kernels, rows: int) -> tuple[int, ...]:
    """Tokens of a kernel set's prefill passes, the largest first: those that a cache of so many rows holds."""
    return tuple(T for T in getattr(kernels, "chunks", CHUNKS) if T <= rows)


def pieces_of(kernels: Kernels, chunks: tuple[int, ...], matrices: Iterable[PackedWeight]) -> tuple[int, ...]:
    """The same and a smaller one, for prompts that are read between others' tokens, where what it leaves is the same to the last bit:
    over integer matrices, with kernel sets that name no passes of their own."""
    whole_numbers = all(isinstance(one, PackedMatrix) and one.format.bits for one in matrices)
    return (*chunks, PIECE) if whole_numbers and not hasattr(kernels, "chunks") else chunks


def chunk_for(tokens: int, seconds: float, chunks: tuple[int, ...], room: int, longest: float | None = None) -> int:
    """Which of `chunks` comes next where so many tokens are to be read, one of them takes so many seconds, and `room` rows are left.
    A pass may take `longest` seconds, by default LONGEST; as long as it is not known what a token takes, `longest` means the smallest.

    The smallest of them always fits: a cache has that many rows beyond its capacity."""
    most = LONGEST if longest is None else longest
    known = longest is None or seconds > 0
    bearable = [T for T in chunks if known and T * seconds <= most and T <= room] or [min(chunks)]
    T = next((T for T in bearable if T <= tokens), min(bearable))
    # a remainder that fills most of a larger chunk is one pass there instead of several here
    return next((bigger for bigger in reversed(bearable) if tokens <= bigger < 2 * tokens), T)
