/* Vector operations on NEON (aarch64 baseline). 4 lanes of f32, 32 registers.
 * FMA: 4 cycles; 2 a cycle on Cortex-A7x and Neoverse N, 4 a cycle on Neoverse V and Apple cores. */
#include <arm_neon.h>
#include "../lean_abi.h"

#define LANES 4
typedef float32x4_t V;
typedef uint64_t M;    /* number of valid lanes */
typedef float64x2_t D; /* half as many lanes of f64 */

#define FMA(acc, a, b) ((acc) = vfmaq_f32(acc, a, b))
#define FMA_LOAD(acc, a, p) FMA(acc, a, v_load(p))
#define LOAD(x, p) ((x) = v_load(p))
/* acc += w * x4[lane]: multiplying by a lane saves a broadcast. */
#if defined(__GNUC__) && !defined(__clang__)
#define FMA_LANE(acc, w, x4, lane) __asm__("fmla %0.4s, %1.4s, %2.s[" #lane "]" : "+w"(acc) : "w"(w), "w"(x4))
#else
#define FMA_LANE(acc, w, x4, lane) ((acc) = vfmaq_laneq_f32(acc, w, x4, lane))
#endif

static inline M m_first(uint64_t n) { return n; }
static inline M m_all(void) { return 4; }
static inline V v_zero(void) { return vdupq_n_f32(0.0f); }
static inline V v_set1(float x) { return vdupq_n_f32(x); }
static inline V v_load(const float *p) { return vld1q_f32(p); }
static inline V v_load_masked(const float *p, M m) {
  V x = vdupq_n_f32(0.0f);
  if (m > 3) return vld1q_f32(p);
  if (m > 0) x = vld1q_lane_f32(p, x, 0);
  if (m > 1) x = vld1q_lane_f32(p + 1, x, 1);
  if (m > 2) x = vld1q_lane_f32(p + 2, x, 2);
  return x;
}
typedef uint8x16_t P; /* an order of lanes */
static inline P v_exchange(uint64_t r) { /* lane i takes lane i xor r */
  const uint8x16_t bytes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return veorq_u8(bytes, vdupq_n_u8((uint8_t)(4 * r)));
}
static inline V v_permute(V x, P order) { return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(x), order)); }
static inline void v_store(float *p, V x) { vst1q_f32(p, x); }
static inline void v_store_masked(float *p, V x, M m) {
  if (m > 3) {
    vst1q_f32(p, x);
    return;
  }
  if (m > 0) vst1q_lane_f32(p, x, 0);
  if (m > 1) vst1q_lane_f32(p + 1, x, 1);
  if (m > 2) vst1q_lane_f32(p + 2, x, 2);
}
static inline V v_add(V a, V b) { return vaddq_f32(a, b); }
static inline V v_sub(V a, V b) { return vsubq_f32(a, b); }
static inline V v_mul(V a, V b) { return vmulq_f32(a, b); }
static inline V v_fma(V a, V b, V c) { return vfmaq_f32(c, a, b); } /* a b + c, rounded once */
static inline V v_and_not(uint32x4_t m, V x) { return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), m)); }
static inline V v_relu(V x) { return v_and_not(vcltzq_f32(x), x); } /* keeps NaN and -0, which fmax would not */
static inline V v_where_positive(V test, V x) { return vreinterpretq_f32_u32(vandq_u32(vcgtzq_f32(test), vreinterpretq_u32_f32(x))); }
static inline V v_flush_below(V x, V limit) { return v_and_not(vcaltq_f32(x, limit), x); }
static inline D d_zero(void) { return vdupq_n_f64(0.0); }
static inline D d_low(V x) { return vcvt_f64_f32(vget_low_f32(x)); }
static inline D d_high(V x) { return vcvt_high_f64_f32(x); }
static inline D d_add(D a, D b) { return vaddq_f64(a, b); }
static inline D d_sub(D a, D b) { return vsubq_f64(a, b); }
static inline D d_fma(D a, D b, D c) { return vfmaq_f64(c, a, b); }
static inline void d_store(double *p, D x) { vst1q_f64(p, x); }
