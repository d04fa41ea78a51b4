/* lean_stencilgradient_f32_avx2_cross4_s1_v8
 * generated from kernels/templates/stencilgradient.c.in; do not edit
 *
 * Gradients of the stencil cross4 and of the bias:
 *   ds[t][i] = sum over pixels p of g_i(p) x_i(p + t),   db[i] = sum over pixels p of g_i(p).
 *
 * Two vectors of channels at a time. Their sums stay in registers while the rows pass by, in pixel order. A tap
 * outside the image adds nothing: only the first and last pixel of a row need a test for each column.
 */
#include "isa/avx2.h"

#define INLINE static inline __attribute__((always_inline))

/* Neighbouring channels; with a mask, only the first vector. */
typedef struct Values {
  V a, b;
} Values;

INLINE Values load(const float *p, const M *mask) {
  if (mask) return (Values){v_load_masked(p, *mask), v_zero()};
  return (Values){v_load(p), v_load(p + LANES)};
}
INLINE void add(Values *sum, Values x, const M *mask) {
  sum->a = v_add(sum->a, x.a);
  if (!mask) sum->b = v_add(sum->b, x.b);
}
INLINE void multiply(Values *sum, Values x, Values y, const M *mask) {
  FMA(sum->a, x.a, y.a);
  if (!mask) FMA(sum->b, x.b, y.b);
}
INLINE void multiply_at(Values *sum, Values x, const float *p, const M *mask) {
  if (mask) {
    FMA(sum->a, x.a, v_load_masked(p, *mask));
    return;
  }
  FMA_LOAD(sum->a, x.a, p);
  FMA_LOAD(sum->b, x.b, p + LANES);
}
INLINE void load_sum(Values *sum, const float *p, const M *mask) {
  sum->a = v_load(p);
  if (!mask) sum->b = v_load(p + LANES);
}
INLINE void store_sum(float *p, Values sum, const M *mask) {
  v_store(p, sum.a);
  if (!mask) v_store(p + LANES, sum.b);
}

INLINE void sums_0(const LeanStencilGradientArgs *a, uint64_t column, const M *mask) {
  const int64_t step = (int64_t)a->channels, row_step = (int64_t)(a->width * a->channels);
  float *ds = a->dstencil + column / LEAN_PANEL * (4 * LEAN_PANEL) + column % LEAN_PANEL;
  const Values zero = {v_zero(), v_zero()};
  float *db = a->dbias + column;
  Values bias = zero;
  Values north = zero;
  Values west = zero;
  Values east = zero;
  Values south = zero;
  if (a->flags & LEAN_ACCUMULATE) {
    load_sum(&bias, db, mask);
    load_sum(&north, ds + 0 * LEAN_PANEL, mask);
    load_sum(&west, ds + 1 * LEAN_PANEL, mask);
    load_sum(&east, ds + 2 * LEAN_PANEL, mask);
    load_sum(&south, ds + 3 * LEAN_PANEL, mask);
  }
  for (uint64_t h = a->first; h < a->last; h++) {
    const int64_t start = (int64_t)h * row_step + (int64_t)column;
    const float *x = (const float *)a->x + start, *g = (const float *)a->g + start;
    for (uint64_t w = 0; w < a->width; w++, x += step, g += step) {
      if (w == 1) {
        for (; w + 1 < a->width; w++, x += step, g += step) {
          const Values gradient = load(g, mask);
          add(&bias, gradient, mask);
          if (h >= 1) {
            multiply_at(&north, gradient, x - row_step, mask);
          }
          multiply_at(&west, gradient, x - step, mask);
          multiply_at(&east, gradient, x + step, mask);
          if (h + 1 < a->height) {
            multiply_at(&south, gradient, x + row_step, mask);
          }
        }
      }
      const Values gradient = load(g, mask);
      add(&bias, gradient, mask);
      if (h >= 1) multiply_at(&north, gradient, x - row_step, mask);
      if (w >= 1) multiply_at(&west, gradient, x - step, mask);
      if (w + 1 < a->width) multiply_at(&east, gradient, x + step, mask);
      if (h + 1 < a->height) multiply_at(&south, gradient, x + row_step, mask);
    }
  }
  store_sum(db, bias, mask);
  store_sum(ds + 0 * LEAN_PANEL, north, mask);
  store_sum(ds + 1 * LEAN_PANEL, west, mask);
  store_sum(ds + 2 * LEAN_PANEL, east, mask);
  store_sum(ds + 3 * LEAN_PANEL, south, mask);
}
static __attribute__((noinline)) void whole_0(const LeanStencilGradientArgs *a, uint64_t column) {
  sums_0(a, column, 0);
}
static __attribute__((noinline)) void edge_0(const LeanStencilGradientArgs *a, uint64_t column) {
  const M mask = a->channels - column < LANES ? m_first(a->channels - column) : m_all();
  sums_0(a, column, &mask);
}

void lean_stencilgradient_f32_avx2_cross4_s1_v8_0_0_0(const LeanStencilGradientArgs *a) {
  uint64_t column = 0;
  for (; column + 2 * LANES <= a->channels; column += 2 * LANES) {
    whole_0(a, column);
  }
  /* Lanes past the last channel hold 0: the panel's padding. */
  for (; column < a->channels; column += LANES) {
    edge_0(a, column);
  }
}
