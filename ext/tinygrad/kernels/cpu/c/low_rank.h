// Low-rank changes of products: acc becomes gain * acc + B (A x). A is (rank, COLS), B lies as weights do: 16 rows of a group side by side, for
// each of `rank` columns. CHANGE is the element of both, f16 or f32. What A x gives is float32 and called narrow here; it is summed in one order,
// whichever kernel does it.

#define SIDE_BY_SIDE 4  // rows of A that share a loaded piece of x; a rank is a multiple of it

INLINE vf load_change(const CHANGE* p) { return sizeof(CHANGE) == 2 ? load_half(p) : LOAD(vf, p); }
INLINE f32 change_at(const CHANGE* p) { return sizeof(CHANGE) == 2 ? half_at(p) : *(const f32*)p; }

// A x of a row, normed where there is a norm
INLINE void narrow_row(const f32* x, const f32* norm, f32 eps, int cols, const CHANGE* a, int rank, f32* out) {
  const f32 r = norm ? inverse_rms(x, cols, eps) : 1.0f;
  for (int first = 0; first < rank; first += SIDE_BY_SIDE) {
    const CHANGE* rows = a + (long)first * cols;
    vf sums[2][SIDE_BY_SIDE];
    UNROLL for (int j = 0; j < SIDE_BY_SIDE; j++) sums[0][j] = sums[1][j] = SPLAT(0);
    int c = 0;
    for (; c + 2 * LANES <= cols; c += 2 * LANES)
      UNROLL for (int side = 0; side < 2; side++) {
        const int at = c + side * LANES;
        vf v = LOAD(vf, x + at);
        if (norm) v *= LOAD(vf, norm + at);
        UNROLL for (int j = 0; j < SIDE_BY_SIDE; j++) sums[side][j] += v * load_change(rows + (long)j * cols + at);
      }
    UNROLL for (int j = 0; j < SIDE_BY_SIDE; j++) out[first + j] = sum_lanes(sums[0][j] + sums[1][j]);
    for (; c < cols; c++)
      UNROLL for (int j = 0; j < SIDE_BY_SIDE; j++) out[first + j] += (norm ? x[c] * norm[c] : x[c]) * change_at(rows + (long)j * cols + c);
    UNROLL for (int j = 0; j < SIDE_BY_SIDE; j++) out[first + j] *= r;
  }
}

// the sums of a tile; token t's narrow row begins at narrow + t * stride
#define ADAPT(acc, tile, RANK, b, gain, narrow, stride, rows)                                                       \
  UNROLL for (int v_ = 0; v_ < VECTORS; v_++) {                                                                     \
    const int row_ = (tile) * TILE_ROWS + v_ * LANES;                                                               \
    vf of_b_[RANK];                                                                                                 \
    UNROLL for (int j_ = 0; j_ < RANK; j_++) of_b_[j_] = load_change((b) + ((long)row_ / 16 * RANK + j_) * 16 + row_ % 16); \
    for (int t_ = 0; t_ < TOKENS; t_++) {                                                                           \
      vf y_ = (acc)[t_ * VECTORS + v_];                                                                             \
      if ((gain) != 0) y_ *= load_rows((gain), row_, (rows));                                                       \
      UNROLL for (int j_ = 0; j_ < RANK; j_++) y_ += of_b_[j_] * (narrow)[(long)t_ * (stride) + j_];                \
      (acc)[t_ * VECTORS + v_] = y_;                                                                                \
    }                                                                                                               \
  }
