/* Vector operations on AVX-512 (F, VL, BW, DQ). 16 lanes of f32, 32 registers.
 * FMA: 4 cycles; 2 a cycle on server Intel since Skylake-SP, 1 a cycle (two halves) on Zen 4. Loads: 2 a cycle on Intel, 1 on Zen 4. */
#include <immintrin.h>
#include "../lean_abi.h"

#define LANES 16
typedef __m512 V;
typedef __mmask16 M;
typedef __m512d D; /* half as many lanes of f64 */

/* gcc 12 spills and copies the accumulators of large tiles written with the intrinsic; one pinned instruction does not. */
#if defined(__GNUC__) && !defined(__clang__)
#define FMA(acc, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b))
/* acc += a * the vector at p, which takes no register. */
typedef float Unaligned __attribute__((vector_size(64), aligned(4), may_alias));
#define FMA_LOAD(acc, a, p) __asm__("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "m"(*(const Unaligned *)(p)))
#else
#define FMA_LOAD(acc, a, p) FMA(acc, a, v_load(p))
#define FMA(acc, a, b) ((acc) = _mm512_fmadd_ps(a, b, acc))
#endif

static inline M m_first(uint64_t n) { return (M)((1u << n) - 1); } /* n < 16 */
static inline M m_all(void) { return (M)0xffff; }
static inline V v_zero(void) { return _mm512_setzero_ps(); }
static inline V v_set1(float x) { return _mm512_set1_ps(x); }
static inline V v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline V v_load_masked(const float *p, M m) { return _mm512_maskz_loadu_ps(m, p); }
typedef __m512i P; /* an order of lanes */
static const int32_t lane_numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static inline P v_exchange(uint64_t r) { /* lane i takes lane i xor r < LANES, which comes from memory: no move between registers */
  return _mm512_xor_si512(_mm512_loadu_si512(lane_numbers), _mm512_set1_epi32(lane_numbers[r]));
}
static inline V v_permute(V x, P order) { return _mm512_permutexvar_ps(order, x); }
static inline void v_store(float *p, V x) { _mm512_storeu_ps(p, x); }
static inline void v_store_masked(float *p, V x, M m) { _mm512_mask_storeu_ps(p, m, x); }
static inline V v_add(V a, V b) { return _mm512_add_ps(a, b); }
static inline V v_sub(V a, V b) { return _mm512_sub_ps(a, b); }
static inline V v_mul(V a, V b) { return _mm512_mul_ps(a, b); }
static inline V v_fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); } /* a b + c, rounded once */
static inline V v_relu(V x) { return _mm512_max_ps(_mm512_setzero_ps(), x); } /* the second operand wins on NaN and -0 */
static inline V v_where_positive(V test, V x) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(test, _mm512_setzero_ps(), _CMP_GT_OQ), x); }
static inline V v_flush_below(V x, V limit) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_abs_ps(x), limit, _CMP_NLT_UQ), x); }
static inline D d_zero(void) { return _mm512_setzero_pd(); }
static inline D d_low(V x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
static inline D d_high(V x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }
static inline D d_add(D a, D b) { return _mm512_add_pd(a, b); }
static inline D d_sub(D a, D b) { return _mm512_sub_pd(a, b); }
static inline D d_fma(D a, D b, D c) { return _mm512_fmadd_pd(a, b, c); }
static inline void d_store(double *p, D x) { _mm512_storeu_pd(p, x); }
