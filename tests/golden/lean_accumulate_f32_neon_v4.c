/* lean_accumulate_f32_neon_v4
 * generated from kernels/templates/elementwise.c.in; do not edit
 *
 * y = y + a. Bound by memory.
 */
#include "isa/neon.h"

static inline __attribute__((always_inline)) void lanes_1(const LeanElementwiseArgs *a, uint64_t column) {
  const V y = v_add(v_load((const float *)a->y + column), v_load((const float *)a->a + column));
  v_store((float *)a->y + column, y);
}

static inline __attribute__((always_inline)) void edge(const LeanElementwiseArgs *a, uint64_t column, M mask) {
  const V y = v_add(v_load_masked((const float *)a->y + column, mask), v_load_masked((const float *)a->a + column, mask));
  v_store_masked((float *)a->y + column, y, mask);
}

/* Channels outermost: per-channel values and sums stay in registers. */
void lean_accumulate_f32_neon_v4_0_0_0(const LeanElementwiseArgs *a) {
  uint64_t column = 0;
  for (; column + LANES <= a->channels; column += LANES) lanes_1(a, column);
  if (column < a->channels) edge(a, column, m_first(a->channels - column));
}
