"""How many tokens of a prompt a pass takes."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ext.tinygrad.kernels.protocol import Kernels, PackedWeight

CHUNKS = (128, 32)  # tokens a prefill pass takes, where a kernel set has no `chunks`; every prompt is cut into these, the last piece padded
PIECE = 8  # tokens of the smallest pass of a prompt: only where passes must be short, since one more has to be captured
PASS_TOKENS = 3.0  # what a pass costs beside its tokens, in tokens, where a kernel set has no `chunks`
UNTIMED = 128  # tokens of a pass at most, as long as it is not known how long a token takes: a large model needs seconds for them
LONGEST = 1.0  # seconds of a pass, as far as the chunks allow: nothing can interrupt one, and Ctrl-C, or a server's other client, waits


def chunks_of(kernels: "Kernels", rows: int) -> tuple[int, ...]:
    """Tokens of a kernel set's prefill passes, the largest first: those that a cache of so many rows holds."""
    return tuple(T for T in getattr(kernels, "chunks", CHUNKS) if T <= rows)


def pieces_of(kernels: "Kernels", chunks: tuple[int, ...], matrices: "Iterable[PackedWeight]") -> tuple[int, ...]:
    """The same and a smaller one, for prompts that are read between others' tokens, where what it leaves is the same to the last bit:
    over integer matrices, with kernel sets of which it is known what a pass costs."""
    from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix  # it brings tinygrad, which a server over a double does without

    whole_numbers = all(isinstance(one, PackedMatrix) and one.format.bits for one in matrices)
    return (*chunks, PIECE) if whole_numbers and pass_tokens_of(kernels) is not None else chunks


def pass_tokens_of(kernels: "Kernels") -> float | None:
    """What a pass costs beside its tokens, in tokens: as a kernel set says; None where one that names passes of its own does not."""
    known: float | None = getattr(kernels, "pass_tokens", None if hasattr(kernels, "chunks") else PASS_TOKENS)
    return known


def chunk_for(
    tokens: int, seconds: float, chunks: tuple[int, ...], room: int, longest: float | None = None, overhead: float | None = None
) -> int:
    """Which of `chunks` comes next where so many tokens are to be read, one of them takes so many seconds, and `room` rows are left.
    A pass may take `longest` seconds, by default LONGEST; as long as it is not known what a token takes (0), `longest` means the smallest,
    and none takes more than UNTIMED tokens.

    The smallest of them always fits: a cache has that many rows beyond its capacity. A remainder is one padded pass where that costs less
    than several that it fills; without `overhead` (`pass_tokens_of`), where it fills most of it."""
    most = LONGEST if longest is None else longest
    untimed = UNTIMED if longest is None else 0
    bearable = [T for T in chunks if (T * seconds <= most if seconds > 0 else T <= untimed) and T <= room] or [min(chunks)]
    T = next((T for T in bearable if T <= tokens), min(bearable))
    padded = next((T for T in reversed(bearable) if tokens <= T), None)
    if padded is None:
        return T
    return padded if (padded < 2 * tokens if overhead is None else padded + overhead <= _in_pieces(tokens, bearable, overhead)) else T


def _in_pieces(tokens: int, chunks: Sequence[int], overhead: float) -> float:
    """What passes cost that are each as large as they can be filled, but for the last; in tokens."""
    cost = 0.0
    for T in chunks:
        passes, tokens = divmod(tokens, T)
        cost += passes * (T + overhead)
    return cost + (min(chunks) + overhead if tokens else 0)
