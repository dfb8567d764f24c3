"""How the CPU's products are cut into tasks, and what these read."""

from collections.abc import Sequence

from ext.tinygrad.graph.pool import thread_count
from ext.tinygrad.graph.task_ranges import WHOLE, Stretch
from ext.tinygrad.kernels.cpu.cpu_low_rank import ranks
from ext.tinygrad.kernels.low_rank import packed
from ext.tinygrad.kernels.packed.formats import GROUP
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix

# Tasks are what threads share out. Their number follows from shapes, so that results never depend on how many threads there are; those of a
# product of one token come out the same whatever their number.
TASK_WEIGHTS = 160  # bytes of weights a decode task should read for each column: who claims some norms and quantises the activations again
TASK_MACS = 2 << 20  # multiplications of a prefill task, about 25 µs
FEW_TOKENS = 16  # so many or fewer read the weights faster than they multiply them, or hardly slower: tasks are smaller
FEW_MACS = 1 << 20  # multiplications of a task of few tokens
FEW_BYTES = 1 << 16  # of weights that such a task reads at most, as long as there are fewer than eight
MAX_TASKS = 64
TOKENS_A_LINE = 16  # whose scales, of one block of 32 columns, fill a cache line (ACT_BLOCK of c/activations.h)


def even(tasks: int) -> int:
    """So many tasks, or a few less, that two or four threads share evenly."""
    return tasks // 4 * 4 if tasks >= 4 else max(1, tasks)


def product_tasks(T: int, weights: Sequence[PackedMatrix]) -> int:
    """Tasks of a product of T tokens: four or eight at least where there is work for them, so that two to eight threads share it evenly."""
    if T == 1:
        nbytes = sum(w.nbytes for w in weights)
        n = max(nbytes // (TASK_WEIGHTS * weights[0].shape[1]), min(8, nbytes >> 15))
        if any(ranks(weights)):  # every task sums A x again, which comes out the same however many they are
            n = min(n, max(4, thread_count()))
    else:
        macs = T * sum(w.shape[0] * w.shape[1] for w in weights)
        n = macs // TASK_MACS if T > FEW_TOKENS else max(macs // FEW_MACS, min(8, sum(w.nbytes for w in weights) // FEW_BYTES))
    return even(min(n, MAX_TASKS, sum(-(-w.shape[0] // GROUP) for w in weights)))


def prepare_tasks(T: int) -> int:
    """Tasks that make integers of the activations of T tokens: none writes to a cache line that another writes to. Two cores that fill one
    line's scales in turn wait for it 700 times a pass of 16 tokens."""
    return max(1, T // TOKENS_A_LINE)


def product_reads(weights: Sequence[PackedMatrix], argument: int, abreast: bool, streams: int) -> list[Stretch]:
    """What tasks read of weights, the first of which is this argument: their share of each one where abreast, else one after another.

    A weight that is read in streams is cut into as many pieces, which are read abreast (c/tile.h)."""
    reads, rows, total = list[Stretch](), 0, sum(w.shape[0] for w in weights)
    for i, weight in enumerate(weights):
        first, rows = WHOLE * rows // total, rows + weight.shape[0]
        tasks = (0, WHOLE) if abreast else (first, WHOLE * rows // total)
        piece = packed(weight).nbytes // streams
        reads += [Stretch(argument + i, stream * piece, piece, *tasks) for stream in range(streams)]
    return reads
