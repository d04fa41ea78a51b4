/* Vector operations on AVX2 + FMA. 8 lanes of f32, 16 registers.
 * FMA: 4 or 5 cycles, 2 a cycle; loads: 2 a cycle (Haswell and Zen 2 onwards). */
#include <immintrin.h>
#include "../lean_abi.h"

#define LANES 8
typedef __m256 V;
typedef __m256i M;
typedef __m256d D; /* half as many lanes of f64 */

/* gcc 12 spills and copies the accumulators of large tiles written with the intrinsic; one pinned instruction does not. */
#if defined(__GNUC__) && !defined(__clang__)
#define FMA(acc, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b))
/* acc += a * the vector at p, which takes no register. */
typedef float Unaligned __attribute__((vector_size(32), aligned(4), may_alias));
#define FMA_LOAD(acc, a, p) __asm__("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "m"(*(const Unaligned *)(p)))
#else
#define FMA_LOAD(acc, a, p) FMA(acc, a, v_load(p))
#define FMA(acc, a, b) ((acc) = _mm256_fmadd_ps(a, b, acc))
#endif

static inline M m_first(uint64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline M m_all(void) { return _mm256_set1_epi32(-1); }
static inline V v_zero(void) { return _mm256_setzero_ps(); }
static inline V v_set1(float x) { return _mm256_set1_ps(x); }
static inline V v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline V v_load_masked(const float *p, M m) { return _mm256_maskload_ps(p, m); }
typedef __m256i P; /* an order of lanes */
static const int32_t lane_numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7};
static inline P v_exchange(uint64_t r) { /* lane i takes lane i xor r < LANES, which comes from memory: no move between registers */
  return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)lane_numbers), _mm256_set1_epi32(lane_numbers[r]));
}
static inline V v_permute(V x, P order) { return _mm256_permutevar8x32_ps(x, order); }
static inline void v_store(float *p, V x) { _mm256_storeu_ps(p, x); }
static inline void v_store_masked(float *p, V x, M m) { _mm256_maskstore_ps(p, m, x); }
static inline V v_add(V a, V b) { return _mm256_add_ps(a, b); }
static inline V v_sub(V a, V b) { return _mm256_sub_ps(a, b); }
static inline V v_mul(V a, V b) { return _mm256_mul_ps(a, b); }
static inline V v_fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); } /* a b + c, rounded once */
static inline V v_relu(V x) { return _mm256_max_ps(_mm256_setzero_ps(), x); } /* the second operand wins on NaN and -0 */
static inline V v_where_positive(V test, V x) { return _mm256_and_ps(_mm256_cmp_ps(test, _mm256_setzero_ps(), _CMP_GT_OQ), x); }
static inline V v_flush_below(V x, V limit) {
  V magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  return _mm256_and_ps(_mm256_cmp_ps(magnitude, limit, _CMP_NLT_UQ), x);
}
static inline D d_zero(void) { return _mm256_setzero_pd(); }
static inline D d_low(V x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
static inline D d_high(V x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }
static inline D d_add(D a, D b) { return _mm256_add_pd(a, b); }
static inline D d_sub(D a, D b) { return _mm256_sub_pd(a, b); }
static inline D d_fma(D a, D b, D c) { return _mm256_fmadd_pd(a, b, c); }
static inline void d_store(double *p, D x) { _mm256_storeu_pd(p, x); }
