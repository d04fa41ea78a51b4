/* lean_stencilgradient_f32_avx2_cross4_s1_v8
 * generated from kernels/templates/stencilgradient.c.in; do not edit
 *
 * Gradients of the stencil cross4 and of the bias:
 *   ds[t][i] = sum over pixels p of g_i(p) x_i(p + t),   db[i] = sum over pixels p of g_i(p).
 *
 * One vector of channels at a time. Its sums stay in registers while the rows pass by, in pixel order; of more taps than there are
 * registers, 4 at a time. A tap outside the image adds nothing. Per pixel and vector: 4 FMAs and 5 loads: bound by the loads.
 */
#include "isa/avx2.h"

static __attribute__((noinline)) void sums_0(const LeanStencilGradientArgs *a, uint64_t column, M mask) {
  const uint64_t panel = column / LEAN_PANEL, lane = column % LEAN_PANEL;
  const int64_t step = (int64_t)a->channels, row_step = (int64_t)(a->width * a->channels);
  float *ds = a->dstencil + panel * 4 * LEAN_PANEL + lane;
  V north = v_zero(), west = v_zero(), east = v_zero(), south = v_zero();
  float *db = a->dbias + column;
  V bias = v_zero();
  if (a->flags & LEAN_ACCUMULATE) {
    bias = v_load(db);
    north = v_load(ds + 0 * LEAN_PANEL);
    west = v_load(ds + 1 * LEAN_PANEL);
    east = v_load(ds + 2 * LEAN_PANEL);
    south = v_load(ds + 3 * LEAN_PANEL);
  }
  for (uint64_t h = a->first; h < a->last; h++) {
    const int64_t start = (int64_t)h * row_step + (int64_t)column;
    const float *x = (const float *)a->x + start, *g = (const float *)a->g + start;
    for (uint64_t w = 0; w < a->width; w++, x += step, g += step) {
      const V gradient = v_load_masked(g, mask);
      bias = v_add(bias, gradient);
      if (h >= 1) FMA(north, gradient, v_load_masked(x - row_step, mask));
      if (w >= 1) FMA(west, gradient, v_load_masked(x - step, mask));
      if (w + 1 < a->width) FMA(east, gradient, v_load_masked(x + step, mask));
      if (h + 1 < a->height) FMA(south, gradient, v_load_masked(x + row_step, mask));
    }
  }
  /* Lanes past the last channel hold 0: the panel's padding. */
  v_store(db, bias);
  v_store(ds + 0 * LEAN_PANEL, north);
  v_store(ds + 1 * LEAN_PANEL, west);
  v_store(ds + 2 * LEAN_PANEL, east);
  v_store(ds + 3 * LEAN_PANEL, south);
  (void)step, (void)row_step;
}

static inline __attribute__((always_inline)) void channels_at(const LeanStencilGradientArgs *a, uint64_t column, M mask) {
  sums_0(a, column, mask);
}

void lean_stencilgradient_f32_avx2_cross4_s1_v8_0_0_0(const LeanStencilGradientArgs *a) {
  uint64_t column = 0;
  for (; column + LANES <= a->channels; column += LANES) channels_at(a, column, m_all());
  if (column < a->channels) channels_at(a, column, m_first(a->channels - column));
}
