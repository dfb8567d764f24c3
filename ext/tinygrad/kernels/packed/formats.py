"""The weight formats of the CPU kernels: which bytes a matrix becomes.

Rows go in groups of 16, padded with zeros. Integer formats: a group is a row of blocks of 32 columns; a block holds the scales of its
16 rows (two sets where a scale covers 16 columns), their minima, then the integers: byte 4 r + i of a 64-byte vector belongs to row r,
so that one load covers 16 rows x 4 columns (AVX-512) or half of them (AVX2, two of NEON's). c/integer_tile.h reads it and says how the
bits lie. Float formats: a group is a row of columns of 16 values. Those named …_rows are a file's own bytes, row after row: nothing is
packed, and a file that is mapped into memory is read where it is.
"""

from dataclasses import dataclass

import numpy as np

from ext.tinygrad.kernels.matrix import QuantMatrix

LAYOUT = "rows16"  # of the CPU's and the GPU's kernels: what both read, byte for byte
VERSION = 2  # of the layout: a packed file of another version is of no use
GROUP = 16  # rows side by side


@dataclass(frozen=True)
class Format:
    """A layout. Integer formats have bits; float ones an element type."""

    name: str
    bits: int = 0  # of an integer
    scale_cols: int = 32  # columns a scale covers
    has_min: bool = False
    zero: int = 0  # what the stored integers are too large by; 8-bit ones are stored signed
    k_scales: bool = False  # 8-bit scales under f16 super-scales of 256 columns, as the ggml K types have them; otherwise f16 scales
    element: str = ""  # "f16", "f32" or "bf16"
    as_stored: bool = False  # rows one after another, as files have them

    @property
    def scale_sets(self) -> int:
        return 32 // self.scale_cols

    @property
    def record(self) -> np.dtype:
        """What repeats along a group: a block of 32 columns, or a super-block of 256."""
        kind = np.dtype((np.uint8 if self.has_min else np.int8) if self.k_scales else np.float16)
        scales = [("scales", kind, (self.scale_sets, GROUP)), ("minima", kind, (int(self.has_min), GROUP))]
        block = np.dtype([*scales, ("quants", np.uint32, (self.bits, GROUP))])
        if self.k_scales:
            return np.dtype([("supers", np.float16, (1 + self.has_min, GROUP)), ("blocks", block, (8,))])
        return np.dtype([("blocks", block, (1,))])

    @property
    def dtype(self) -> np.dtype:
        """Of a packed float."""
        return np.dtype(np.float16 if self.element == "f16" else np.float32)

    @property
    def record_cols(self) -> int:
        return 256 if self.k_scales else 32

    def group_bytes(self, cols: int) -> int:
        if self.element:
            return cols * GROUP * (4 if self.element == "f32" else 2)
        return cols // self.record_cols * self.record.itemsize

    def nbytes(self, rows: int, cols: int) -> int:
        return -(-rows // GROUP) * self.group_bytes(cols)


FORMATS = {
    f.name: f
    for f in (
        Format("q4_0", bits=4, zero=8),
        Format("q4_1", bits=4, has_min=True),
        Format("q5_0", bits=5, zero=16),
        Format("q5_1", bits=5, has_min=True),
        Format("q8_0", bits=8),
        Format("q4_k", bits=4, has_min=True, k_scales=True),
        Format("q5_k", bits=5, has_min=True, k_scales=True),
        Format("q6_k", bits=6, scale_cols=16, zero=32, k_scales=True),
        Format("f16", element="f16"),
        Format("f32", element="f32"),
        Format("f16_rows", element="f16", as_stored=True),
        Format("bf16_rows", element="bf16", as_stored=True),
        Format("f32_rows", element="f32", as_stored=True),
    )
}

# ggml types that lie in the layout of another: bfloat16 keeps its digits in float16 (three more) and loses range that weights do not
# use; the values of IQ4_NL's table are 8-bit integers
SHARED = {"BF16": "f16", "IQ4_NL": "q8_0"}

NATIVE = {name.upper() for name, form in FORMATS.items() if not form.as_stored} | SHARED.keys()  # ggml types that keep their values


def format_of(ggml_type: str) -> Format:
    """The format a ggml type is packed as. Types without one of their own become Q8_0, which loses less than any of them did."""
    return FORMATS.get(SHARED.get(ggml_type, ggml_type.lower()), FORMATS["q8_0"])


def as_stored(matrix: QuantMatrix) -> Format | None:
    """The format that a matrix has already; None where it has to be packed: what is quantised, and rows that do not fill whole groups."""
    rows, cols = matrix.shape
    form = FORMATS.get(f"{matrix.type.lower()}_rows")
    return form if form and rows % GROUP == 0 and cols % 16 == 0 and matrix.data.flags.c_contiguous else None
