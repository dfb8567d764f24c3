"""The layouts of formats.py in NumPy, both ways: what c/pack.c must make, bit for bit, and what packs where no C compiler is."""

import numpy as np

from ext.tinygrad.kernels.matrix import Blocks, QuantMatrix, to_blocks
from ext.tinygrad.kernels.packed.formats import GROUP, Format


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
    scales, minima = blocks["scales"].astype(np.float32), blocks["minima"].astype(np.float32)  # (groups, records, n, sets or 1, GROUP)
    if form.k_scales:
        supers = records["supers"].astype(np.float32)[:, :, None]
        scales, minima = scales * supers[..., :1, :], minima * supers[..., 1:, :]
    quants = _get_quants(blocks["quants"], form).astype(np.float32) - form.zero  # (groups, records, n, 8, GROUP, 4)
    values = quants * np.repeat(scales, 8 // form.scale_sets, axis=3)[..., None]
    if form.has_min:
        values += minima[..., None]
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
    size = {"Q4_K": 144, "Q5_K": 176, "Q6_K": 210}[matrix.type]
    raw = matrix.data[part].reshape(len(blocks.quants), -1, size)
    n = len(raw)
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
    stored = _pad(quants + np.int8(form.zero) if form.zero else quants)
    fours = np.ascontiguousarray(stored).view(np.uint32).reshape(groups, GROUP, n, per_record, 8)  # four columns each
    records["blocks"]["quants"][...] = _put_bits(fours, form.bits).transpose(0, 2, 3, 4, 1)


def _put_bits(fours: np.ndarray, bits: int) -> np.ndarray:
    """(…, 8) words of four bytes to (…, bits) words that hold only what counts of them."""
    if bits == 8:
        return fours
    words = np.empty((*fours.shape[:-1], bits), np.uint32)
    words[..., :4] = (fours[..., 0::2] & 0x0F0F0F0F) | ((fours[..., 1::2] & 0x0F0F0F0F) << 4)
    width = bits - 4  # of what is left, 1 or 2 bits
    for plane in range(width):
        per_plane = 8 // width
        words[..., 4 + plane] = 0
        for i in range(per_plane):
            words[..., 4 + plane] |= ((fours[..., plane * per_plane + i] >> 4) & (0x01010101 * (2**width - 1))) << (width * i)
    return words


def _get_quants(words: np.ndarray, form: Format) -> np.ndarray:
    """(…, bits, GROUP) words to (…, 8, GROUP, 4) integers."""
    if form.bits == 8:
        return np.ascontiguousarray(words).view(np.int8).reshape(*words.shape, 4)
    fours = np.empty((*words.shape[:-2], 8, GROUP), np.uint32)
    fours[..., 0::2, :] = words[..., :4, :] & 0x0F0F0F0F
    fours[..., 1::2, :] = (words[..., :4, :] >> 4) & 0x0F0F0F0F
    width = form.bits - 4
    for c in range(8 if width else 0):
        per_plane = 8 // width
        plane = words[..., 4 + c // per_plane, :]
        fours[..., c, :] |= ((plane >> (width * (c % per_plane))) & (0x01010101 * (2**width - 1))) << 4
    return fours.view(np.uint8).reshape(*fours.shape, 4)
