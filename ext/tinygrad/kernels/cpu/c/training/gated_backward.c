// Gradients of gate and up for dh, the gradient of activation(gate) * up. The activation is gate * s with s = 1 / (1 + exp(-z)), where z is the gate
// itself (SiLU) or GELU's polynomial of it (see simd.h), so its slope is s + gate * s * (1 - s) * dz / dgate.

WIDE_VECTORS void ENTRY(f32* restrict dgate, f32* restrict dup, const f32* restrict dh, const f32* restrict gate, const f32* restrict up, long core_id) {
  for (long i = UNITS * core_id / TASKS * 16; i < UNITS * (core_id + 1) / TASKS * 16; i += LANES) {
    const vf g = LOAD(vf, gate + i), u = LOAD(vf, up + i), d = LOAD(vf, dh + i);
#if GELU
    const vf z = 1.5957691216057308f * (g + 0.044715f * g * g * g), rise = 1.5957691216057308f * (1.0f + 0.134145f * g * g);
#else
    const vf z = g, rise = SPLAT(1.0f);
#endif
    const vf s = 1.0f / (1.0f + vexp(-z));
    STORE(dgate + i, d * u * s * (1.0f + g * (1.0f - s) * rise));
    STORE(dup + i, d * g * s);
  }
}
