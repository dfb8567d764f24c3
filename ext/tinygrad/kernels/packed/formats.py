"""The weight formats that the CPU's and the GPU's kernels share: which bytes a matrix becomes.

Rows go in groups of 16, padded with zeros. Integer formats: a group is a row of blocks of 32 columns; a block holds the scales of its
16 rows (two sets where a scale covers 16 columns), their minima, then the integers: byte 4 r + i of a 64-byte vector belongs to row r,
so that one load covers 16 rows x 4 columns (AVX-512) or half of them (AVX2, two of NEON's). c/integer_tile.h reads it and says how the
bits lie. Float formats: a group is a row of columns of 16 values. Those named …_rows are a file's own bytes, row after row: nothing is
packed, and a file that is mapped into memory is read where it is.

`pack_rows` and `unpack` are the layouts in NumPy, both ways: what c/pack.c must make, bit for bit, and what packs where no C compiler is.
"""

from dataclasses import dataclass

import numpy as np

from ext.tinygrad.kernels.matrix import IQ4_NL_VALUES, Blocks, QuantMatrix, iq4_xs_scales, q3_k_scales, to_blocks

LAYOUT = "rows16"  # of the CPU's and the GPU's kernels: what both read, byte for byte
VERSION = 3  # of the layout: a packed file of another version is of no use
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
    nibble_scales: bool = False  # a scale and a minimum of four bits each in a byte
    codebook: bool = False  # the integers are indices into IQ4_NL_VALUES
    element: str = ""  # "f16", "f32" or "bf16"
    as_stored: bool = False  # rows one after another, as files have them

    @property
    def scale_sets(self) -> int:
        return 32 // self.scale_cols

    @property
    def record(self) -> np.dtype:
        """What repeats along a group: a block of 32 columns, or a super-block of 256."""
        kind = np.dtype((np.uint8 if self.has_min else np.int8) if self.k_scales else np.float16)
        minima = int(self.has_min and not self.nibble_scales)
        scales = [("scales", kind, (self.scale_sets, GROUP)), ("minima", kind, (minima, GROUP))]
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
        Format("iq4_nl", bits=4, codebook=True),
        Format("iq4_xs", bits=4, codebook=True, k_scales=True),
        Format("q2_k", bits=2, scale_cols=16, has_min=True, k_scales=True, nibble_scales=True),
        Format("q3_k", bits=3, scale_cols=16, zero=4, k_scales=True),
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

# ggml types that lie in the layout of another: bfloat16 keeps its digits in float16 (three more) and loses range that weights do not use
SHARED = {"BF16": "f16"}

NATIVE = {name.upper() for name, form in FORMATS.items() if not form.as_stored} | SHARED.keys()  # ggml types that keep their values


def format_of(ggml_type: str) -> Format:
    """The format a ggml type is packed as. Types without one of their own become Q8_0, which loses less than any of them did."""
    return FORMATS.get(SHARED.get(ggml_type, ggml_type.lower()), FORMATS["q8_0"])


def as_stored(matrix: QuantMatrix) -> Format | None:
    """The format that a matrix has already; None where it has to be packed: what is quantised, and rows that do not fill whole groups."""
    rows, cols = matrix.shape
    form = FORMATS.get(f"{matrix.type.lower()}_rows")
    return form if form and rows % GROUP == 0 and cols % 16 == 0 and matrix.data.flags.c_contiguous else None


def pack_rows(matrix: QuantMatrix, part: slice, form: Format, out: np.ndarray) -> None:
    """Some rows, from the first of a group on, into zeroed uint8 (groups, bytes of a group)."""
    if form.element:
        same = matrix.type.lower() == form.element  # then the bits are only moved
        _put_floats(out, _pad(matrix.data[part].view(form.dtype) if same else matrix.dequantize(part)), form)
    elif form.k_scales:
        _put_blocks(out, form, *_k_parts(matrix, part))
    else:
        blocks = to_blocks(matrix, part) or _quantize(matrix.dequantize(part))
        scales = [blocks.scales] if blocks.minima is None else [blocks.scales, blocks.minima]
        _put_blocks(out, form, blocks.quants, [s.astype(np.float16) for s in scales], [])


def unpack(form: Format, packed: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """float32 (rows, cols) of what `pack` laid out."""
    rows, cols = shape
    if form.as_stored:
        return QuantMatrix(form.element.upper(), shape, packed.reshape(rows, -1)).dequantize()
    groups = packed.reshape(-1, form.group_bytes(cols))
    if form.element:
        values = groups.view(form.dtype).reshape(-1, cols, GROUP).transpose(0, 2, 1)
        return np.ascontiguousarray(values.reshape(-1, cols)[:rows], np.float32)
    records = groups.view(form.record)  # (groups, records)
    blocks = records["blocks"]  # (groups, records, n)
    stored, minima = blocks["scales"], blocks["minima"]  # (groups, records, n, sets or 1, GROUP)
    scales, minima = (stored & 15, stored >> 4) if form.nibble_scales else (stored, minima)
    scales, minima = scales.astype(np.float32), minima.astype(np.float32)
    if form.k_scales:
        supers = records["supers"].astype(np.float32)[:, :, None]
        scales, minima = scales * supers[..., :1, :], minima * supers[..., 1:, :]
    integers = _get_quants(blocks["quants"], form)  # (groups, records, n, 8, GROUP, 4)
    quants = (IQ4_NL_VALUES[integers] if form.codebook else integers).astype(np.float32) - form.zero
    values = quants * np.repeat(scales, 8 // form.scale_sets, axis=3)[..., None]
    if form.has_min:
        values += np.repeat(minima, 8 // minima.shape[3], axis=3)[..., None]
    return np.ascontiguousarray(values.transpose(0, 4, 1, 2, 3, 5)).reshape(-1, cols)[:rows]


def _pad(values: np.ndarray) -> np.ndarray:
    """Rows to a multiple of GROUP."""
    missing = -len(values) % GROUP
    return np.pad(values, ((0, missing), (0, 0))) if missing else values


def _put_floats(out: np.ndarray, values: np.ndarray, form: Format) -> None:
    out.view(form.dtype).reshape(len(out), -1, GROUP)[...] = values.reshape(len(out), GROUP, -1).transpose(0, 2, 1)


def _quantize(values: np.ndarray) -> Blocks:
    """float32 to 8-bit blocks of 32, as ggml's Q8_0."""
    parts = values.reshape(len(values), -1, 32)
    scales = (np.abs(parts).max(-1) / 127).astype(np.float16).astype(np.float32)
    quants = np.rint(parts / np.where(scales > 0, scales, 1)[..., None]).clip(-127, 127).astype(np.int8)
    return Blocks(quants.reshape(values.shape), scales, None, 32, 8)


def _k_parts(matrix: QuantMatrix, part: slice) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Integers, 8-bit scales (and minima), f16 super-scales (and super-minima) of a K type as the file has them (ggml-quants.h)."""
    blocks = to_blocks(matrix, part)
    assert blocks is not None
    size = {"IQ4_XS": 136, "Q2_K": 84, "Q3_K": 110, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210}[matrix.type]
    raw = matrix.data[part].reshape(len(blocks.quants), -1, size)
    n = len(raw)
    if matrix.type == "IQ4_XS":
        return blocks.quants, [iq4_xs_scales(raw).reshape(n, -1)], [_halves(raw[..., 0:2])]
    if matrix.type == "Q2_K":
        return blocks.quants, [np.ascontiguousarray(raw[..., 0:16]).reshape(n, -1)], [_halves(raw[..., 80:82]), -_halves(raw[..., 82:84])]
    if matrix.type == "Q3_K":
        return blocks.quants, [q3_k_scales(raw).reshape(n, -1)], [_halves(raw[..., 108:110])]
    if matrix.type == "Q6_K":
        return blocks.quants, [np.ascontiguousarray(raw[..., 192:208]).reshape(n, -1)], [_halves(raw[..., 208:210])]
    low, mid, high = raw[..., 4:8], raw[..., 8:12], raw[..., 12:16]
    scales = np.concatenate([low & 63, (high & 15) | ((low >> 6) << 4)], axis=-1).reshape(n, -1)
    minima = np.concatenate([mid & 63, (high >> 4) | ((mid >> 6) << 4)], axis=-1).reshape(n, -1)
    return blocks.quants, [scales, minima], [_halves(raw[..., 0:2]), -_halves(raw[..., 2:4])]


def _halves(raw: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(raw).view(np.float16)[..., 0]


def _put_blocks(out: np.ndarray, form: Format, quants: np.ndarray, scales: list[np.ndarray], supers: list[np.ndarray]) -> None:
    """Integers (rows, cols), scales and perhaps minima (rows, cols / scale_cols), super-scales (rows, cols / 256) into groups."""
    records = out.view(form.record)  # (groups, records)
    groups, n, per_record = *records.shape, form.record_cols // 32

    def spread(values: np.ndarray) -> np.ndarray:
        """(rows, records * x) to (groups, records, x, GROUP)."""
        return _pad(values).reshape(groups, GROUP, n, -1).transpose(0, 2, 3, 1)

    for name, values in zip(("scales", "minima"), scales):
        target = records["blocks"][name]
        target[...] = spread(values).reshape(target.shape)
    for i, values in enumerate(supers):
        records["supers"][:, :, i] = spread(values)[:, :, 0]
    if form.codebook:
        quants = np.searchsorted(IQ4_NL_VALUES, quants).astype(np.int8)
    stored = _pad(quants + np.int8(form.zero) if form.zero else quants)
    fours = np.ascontiguousarray(stored).view(np.uint32).reshape(groups, GROUP, n, per_record, 8)  # four columns each
    records["blocks"]["quants"][...] = _put_bits(fours, form.bits).transpose(0, 2, 3, 4, 1)


def _planes(bits: int) -> list[tuple[int, int]]:
    """Where an integer's bits lie: (lowest, how many) of each plane."""
    return {2: [(0, 2)], 3: [(0, 2), (2, 1)], 4: [(0, 4)], 5: [(0, 4), (4, 1)], 6: [(0, 4), (4, 2)]}[bits]


def _put_bits(fours: np.ndarray, bits: int) -> np.ndarray:
    """(…, 8) words of four bytes to (…, bits) words that hold only what counts of them."""
    if bits == 8:
        return fours
    words, at = np.zeros((*fours.shape[:-1], bits), np.uint32), 0
    for lowest, width in _planes(bits):
        per_word = 8 // width
        for c in range(8):
            words[..., at + c // per_word] |= (fours[..., c] >> lowest & 0x01010101 * (2**width - 1)) << width * (c % per_word)
        at += width
    return words


def _get_quants(words: np.ndarray, form: Format) -> np.ndarray:
    """(…, bits, GROUP) words to (…, 8, GROUP, 4) integers."""
    if form.bits == 8:
        return np.ascontiguousarray(words).view(np.int8).reshape(*words.shape, 4)
    fours, at = np.zeros((*words.shape[:-2], 8, GROUP), np.uint32), 0
    for lowest, width in _planes(form.bits):
        per_word = 8 // width
        for c in range(8):
            fours[..., c, :] |= (words[..., at + c // per_word, :] >> width * (c % per_word) & 0x01010101 * (2**width - 1)) << lowest
        at += width
    return fours.view(np.uint8).reshape(*fours.shape, 4)
