// Low-rank changes of products: acc becomes gain * acc + B (A x). A is (rank, COLS), B lies as weights do: 16 rows of a group side by side, for
// each of `rank` columns. CHANGE is the element of both, f16 or f32. What A x gives is float32 and called narrow here; it is summed in one order,
// whichever kernel does it.

INLINE vf load_change(const CHANGE* p) { return sizeof(CHANGE) == 2 ? load_half(p) : LOAD(vf, p); }
INLINE f32 change_at(const CHANGE* p) { return sizeof(CHANGE) == 2 ? half_at(p) : *(const f32*)p; }

// SIDE rows of A (4 or 8) times a row of x, which is read once for all of them
#define NARROW_SIDE(SIDE)                                                                                           \
  do {                                                                                                              \
    vf sums_[SIDE];                                                                                                 \
    UNROLL for (int j_ = 0; j_ < SIDE; j_++) sums_[j_] = SPLAT(0);                                                  \
    int c_ = 0;                                                                                                     \
    for (; c_ + LANES <= cols; c_ += LANES) {                                                                       \
      vf v_ = LOAD(vf, x + c_);                                                                                     \
      if (norm) v_ *= LOAD(vf, norm + c_);                                                                          \
      UNROLL for (int j_ = 0; j_ < SIDE; j_++) sums_[j_] += v_ * load_change(rows + (long)j_ * cols + c_);          \
    }                                                                                                               \
    UNROLL for (int j_ = 0; j_ < SIDE; j_ += 4) {                                                                   \
      f32x4 four_;                                                                                                  \
      EACH(four_, sums_ + j_, ADDED);                                                                               \
      STORE(out + first + j_, four_);                                                                               \
    }                                                                                                               \
    for (; c_ < cols; c_++)                                                                                         \
      UNROLL for (int j_ = 0; j_ < SIDE; j_++)                                                                      \
        out[first + j_] += (norm ? x[c_] * norm[c_] : x[c_]) * change_at(rows + (long)j_ * cols + c_);              \
    UNROLL for (int j_ = 0; j_ < SIDE; j_++) out[first + j_] *= r;                                                  \
  } while (0)

// A x of a row, normed where there is a norm; a rank is a multiple of 4
INLINE void narrow_row(const f32* x, const f32* norm, f32 eps, int cols, const CHANGE* a, int rank, f32* out) {
  const f32 r = norm ? inverse_rms(x, cols, eps) : 1.0f;
  int first = 0;
  for (; first + 8 <= rank; first += 8) {
    const CHANGE* rows = a + (long)first * cols;
    NARROW_SIDE(8);
  }
  if (first < rank) {
    const CHANGE* rows = a + (long)first * cols;
    NARROW_SIDE(4);
  }
}

// the sums of a tile; token t's narrow row begins at narrow + t * stride
#define ADAPT(acc, tile, RANK, b, gain, narrow, stride, rows)                                                       \
  UNROLL for (int v_ = 0; v_ < VECTORS; v_++) {                                                                     \
    const int row_ = ROW(tile, v_, rows);                                                                           \
    if (row_ >= (rows)) continue;                                                                                   \
    vf of_b_[RANK];                                                                                                 \
    UNROLL for (int j_ = 0; j_ < RANK; j_++) of_b_[j_] = load_change((b) + ((long)row_ / 16 * RANK + j_) * 16 + row_ % 16); \
    for (int t_ = 0; t_ < TOKENS; t_++) {                                                                           \
      vf y_ = (acc)[t_ * VECTORS + v_], odd_ = SPLAT(0);                                                            \
      if ((gain) != 0) y_ *= load_rows((gain), row_, (rows));                                                       \
      UNROLL for (int j_ = 0; j_ < RANK; j_ += 2) {                                                                 \
        y_ += of_b_[j_] * (narrow)[(long)t_ * (stride) + j_];                                                       \
        odd_ += of_b_[j_ + 1] * (narrow)[(long)t_ * (stride) + j_ + 1];                                             \
      }                                                                                                             \
      (acc)[t_ * VECTORS + v_] = y_ + odd_;                                                                         \
    }                                                                                                               \
  }

// a change by its addresses, as a table of such has it (row_changes.py): of A, of B, of the gain (0: none), and the rank (0: no change)
typedef struct { long a, b, gain, rank; } change_place;

// the change of token t_: none where its set is -1, or changes other weights
#define CHANGE_OF(changes, sets, t_) ((sets)[t_] < 0 || !(changes)[(sets)[t_]].rank ? (const change_place*)0 : (changes) + (sets)[t_])

// the sums of a tile where each token has a change of its own, summed as ADAPT does
#define ADAPT_ROWS(acc, tile, changes, sets, narrow, stride, rows)                                                  \
  for (int t_ = 0; t_ < TOKENS; t_++) {                                                                             \
    const change_place* of_ = CHANGE_OF(changes, sets, t_);                                                         \
    if (!of_) continue;                                                                                             \
    const CHANGE* b_ = (const CHANGE*)of_->b;                                                                       \
    const f32 *gain_ = (const f32*)of_->gain, *narrow_ = (narrow) + (long)t_ * (stride);                            \
    const int rank_ = of_->rank;                                                                                    \
    UNROLL for (int v_ = 0; v_ < VECTORS; v_++) {                                                                   \
      const int row_ = ROW(tile, v_, rows);                                                                         \
      if (row_ >= (rows)) continue;                                                                                 \
      const CHANGE* at_ = b_ + (long)row_ / 16 * rank_ * 16 + row_ % 16;                                            \
      vf y_ = (acc)[t_ * VECTORS + v_], odd_ = SPLAT(0);                                                            \
      if (gain_ != 0) y_ *= load_rows(gain_, row_, (rows));                                                         \
      for (int j_ = 0; j_ < rank_; j_ += 2) {                                                                       \
        y_ += load_change(at_ + j_ * 16) * narrow_[j_];                                                             \
        odd_ += load_change(at_ + (j_ + 1) * 16) * narrow_[j_ + 1];                                                 \
      }                                                                                                             \
      (acc)[t_ * VECTORS + v_] = y_ + odd_;                                                                         \
    }                                                                                                               \
  }
