// ACTIVATION(gate) * up of 16 * UNITS entries.

WIDE_VECTORS void ENTRY(f32* restrict out, const f32* restrict gate, const f32* restrict up, long core_id) {
  for (long i = UNITS * core_id / TASKS * 16; i < UNITS * (core_id + 1) / TASKS * 16; i += LANES)
    STORE(out + i, ACTIVATION(LOAD(vf, gate + i)) * LOAD(vf, up + i));
}
