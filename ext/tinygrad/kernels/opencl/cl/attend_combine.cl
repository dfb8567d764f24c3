// The splits of attend_decode.cl put together: a work-group takes a query head

__kernel __attribute__((reqd_work_group_size(LOCAL, 1, 1))) void ENTRY(__global float* restrict out, const __global float* restrict partial) {
  const __global float* p = partial + (long)get_group_id(0) * SPLITS * (HEAD_DIM + 2);
  float best = HIDDEN;
  for (int s = 0; s < SPLITS; s++) best = max(best, p[s * (HEAD_DIM + 2) + HEAD_DIM + 1]);
  for (int d = get_local_id(0); d < HEAD_DIM; d += LOCAL) {
    float sum = 0, total = 0;
    for (int s = 0; s < SPLITS; s++) {
      const __global float* part = p + s * (HEAD_DIM + 2);
      const float weight = exp2(part[HEAD_DIM + 1] - best);
      sum += weight * part[d], total += weight * part[HEAD_DIM];
    }
    out[(long)get_group_id(0) * HEAD_DIM + d] = sum / total;
  }
}
