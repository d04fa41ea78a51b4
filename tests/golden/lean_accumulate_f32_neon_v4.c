/* lean_accumulate_f32_neon_v4
 * generated from kernels/templates/elementwise.c.in; do not edit
 *
 * y = y + a. Bound by memory.
 */
#include "isa/neon.h"


static inline __attribute__((always_inline)) void lanes_at(const LeanElementwiseArgs *a, uint64_t column, M mask) {
  v_store_masked(a->y + column, v_add(v_load_masked(a->y + column, mask), v_load_masked(a->a + column, mask)), mask);
}

/* Channels outermost: the runs of pixels are short, and per-channel values and sums stay in registers. */
void lean_accumulate_f32_neon_v4_0_0_0(const LeanElementwiseArgs *a) {
  uint64_t column = 0;
  for (; column + LANES <= a->channels; column += LANES) lanes_at(a, column, m_all());
  if (column < a->channels) lanes_at(a, column, m_first(a->channels - column));
}
