// Gradients of gate and up for dh, the gradient of silu(gate) * up; with s = 1 / (1 + exp(-gate)), silu'(gate) = s * (1 + gate * (1 - s)).

WIDE_VECTORS void ENTRY(f32* restrict dgate, f32* restrict dup, const f32* restrict dh, const f32* restrict gate, const f32* restrict up, long core_id) {
  for (long i = UNITS * core_id / TASKS * 16; i < UNITS * (core_id + 1) / TASKS * 16; i += LANES) {
    const vf g = LOAD(vf, gate + i), u = LOAD(vf, up + i), d = LOAD(vf, dh + i), s = 1.0f / (1.0f + vexp(-g));
    STORE(dgate + i, d * u * s * (1.0f + g * (1.0f - s)));
    STORE(dup + i, d * g * s);
  }
}
