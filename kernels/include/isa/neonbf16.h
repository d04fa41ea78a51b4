/* Vector operations of FEAT_BF16 beside those of neon.h: 8 lanes of bf16 in a register.
 * BFMMLA: 5 cycles, 3 from sum to sum; 4 a cycle on Neoverse V, as FMA. It adds the first two of four products to each other and then to the
 * sum, and then so the last two; it rounds sums to odd and takes subnormals for zero on either side, whatever FPCR says but for EBF, which
 * is off by default. */
#include "neon.h"

typedef uint16x8_t W; /* bf16 */

/* The first halves of both, and the second ones. */
static inline V v_first_halves(V a, V b) {
  return vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}
static inline V v_second_halves(V a, V b) {
  return vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}
static inline W w_load(const uint16_t *p) { return vld1q_u16(p); }
static inline void w_store(uint16_t *p, W x) { vst1q_u16(p, x); }

#if defined(__GNUC__) && !defined(__clang__)
/* sums += four values of two rows of a by four values of two rows of b: a0 b0, a0 b1, a1 b0, a1 b1. */
#define BLOCK(sums, a, b) __asm__("bfmmla %0.4s, %1.8h, %2.8h" : "+w"(sums) : "w"(a), "w"(b))
/* Four values of p and four of q. gcc 12 would put them together on the stack. */
typedef uint64_t Four __attribute__((aligned(2), may_alias));
static inline W w_load_rows(const uint16_t *p, const uint16_t *q) {
  W rows = vcombine_u16(vld1_u16(p), vdup_n_u16(0));
  __asm__("ld1 {%0.d}[1], %1" : "+w"(rows) : "Q"(*(const Four *)q));
  return rows;
}
/* The second half of a for the first one of b, in one: gcc 12 would have all accumulators twice. */
#define EXCHANGE(a, b)                                                                                                             \
  do {                                                                                                                             \
    V first;                                                                                                                       \
    __asm__("trn1 %0.2d, %2.2d, %1.2d\n\ttrn2 %1.2d, %2.2d, %1.2d" : "=&w"(first), "+w"(b) : "w"(a));                               \
    (a) = first;                                                                                                                   \
  } while (0)
#else
#define BLOCK(sums, a, b) ((sums) = vbfmmlaq_f32(sums, vreinterpretq_bf16_u16(a), vreinterpretq_bf16_u16(b)))
static inline W w_load_rows(const uint16_t *p, const uint16_t *q) { return vcombine_u16(vld1_u16(p), vld1_u16(q)); }
#define EXCHANGE(a, b)                                 \
  do {                                                 \
    const V first = v_first_halves(a, b);              \
    (b) = v_second_halves(a, b);                       \
    (a) = first;                                       \
  } while (0)
#endif

static inline V v_even(W x) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u16(x), 16)); } /* the first of each pair */
static inline V v_odd(W x) { return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(x), vdupq_n_u32(0xffff0000))); }
/* Rounds to nearest even, and puts the pairs together. */
static inline W w_round(V even, V odd) {
  return vzip1q_u16(vreinterpretq_u16_bf16(vcvtq_low_bf16_f32(even)), vreinterpretq_u16_bf16(vcvtq_low_bf16_f32(odd)));
}
/* 4 lanes of bf16 as f32, and back, to nearest even. */
static inline V v_load_bf16(const uint16_t *p) { return vcvt_f32_bf16(vreinterpret_bf16_u16(vld1_u16(p))); }
static inline void v_store_bf16(uint16_t *p, V x) { vst1_u16(p, vreinterpret_u16_bf16(vcvt_bf16_f32(x))); }
/* 8 lanes of f32 as the even and the odd ones, and back. */
static inline void v_load_split(const float *p, V *even, V *odd) {
  const float32x4x2_t pairs = vld2q_f32(p);
  *even = pairs.val[0];
  *odd = pairs.val[1];
}
static inline void v_store_split(float *p, V even, V odd) {
  const float32x4x2_t pairs = {{even, odd}};
  vst2q_f32(p, pairs);
}
static inline W w_zero(void) { return vdupq_n_u16(0); }
static inline W w_load_first(const uint16_t *p, uint64_t n) { /* n < 8 values, then zeros: inputs come in fours */
  (void)n;
  return vcombine_u16(vld1_u16(p), vdup_n_u16(0));
}
/* A lane of each, lane after lane. */
static inline void w_store_zipped(uint16_t *p, W a, W b, W c, W d) {
  const uint32x4_t ab0 = vreinterpretq_u32_u16(vzip1q_u16(a, b)), ab1 = vreinterpretq_u32_u16(vzip2q_u16(a, b));
  const uint32x4_t cd0 = vreinterpretq_u32_u16(vzip1q_u16(c, d)), cd1 = vreinterpretq_u32_u16(vzip2q_u16(c, d));
  w_store(p, vreinterpretq_u16_u32(vzip1q_u32(ab0, cd0)));
  w_store(p + 8, vreinterpretq_u16_u32(vzip2q_u32(ab0, cd0)));
  w_store(p + 16, vreinterpretq_u16_u32(vzip1q_u32(ab1, cd1)));
  w_store(p + 24, vreinterpretq_u16_u32(vzip2q_u32(ab1, cd1)));
}
