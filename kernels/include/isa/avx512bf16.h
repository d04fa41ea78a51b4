/* Vector operations on AVX512-BF16 beside those of avx512.h. 32 lanes of bf16 in a register: 16 pairs of neighbours.
 * Dot products of two: as many a cycle as FMA on Zen 4 and Zen 5, half as many on Intel since Cooper Lake. They take subnormal inputs for
 * zero and round subnormal results to zero, whatever MXCSR says. */
#include "avx512.h"

typedef __m512i W; /* bf16 */

#if defined(__GNUC__) && !defined(__clang__)
/* acc += the dot products of pairs of a and b. */
#define DOT(acc, a, b) __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b))
#else
#define DOT(acc, a, b) ((acc) = _mm512_dpbf16_ps(acc, (__m512bh)(a), (__m512bh)(b)))
#endif

static inline W w_load(const uint16_t *p) { return _mm512_loadu_si512(p); }
static inline void w_store(uint16_t *p, W x) { _mm512_storeu_si512(p, x); }
static inline W w_set1(const uint16_t *p) { /* the pair at p, in all places */
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return _mm512_set1_epi32(pair);
}
static inline V v_even(W x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); } /* the first of each pair */
static inline V v_odd(W x) { return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000))); }
/* Rounds to nearest even, and puts the pairs together. */
static inline W w_round(V even, V odd) {
  const __m512i pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
                                         17, 1, 16, 0);
  return _mm512_permutexvar_epi16(pairs, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}
/* 16 lanes of bf16 as f32, and back, to nearest even. */
static inline V v_widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
static inline V v_load_bf16(const uint16_t *p) { return v_widen(_mm256_loadu_si256((const __m256i *)p)); }
static inline void v_store_bf16(uint16_t *p, V x) { _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(x)); }
/* 32 lanes of f32 as the even and the odd ones, and back. */
static inline void v_load_split(const float *p, V *even, V *odd) {
  const __m512i pairs = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const V first = v_load(p), second = v_load(p + LANES);
  *even = _mm512_permutex2var_ps(first, pairs, second);
  *odd = _mm512_permutex2var_ps(first, _mm512_add_epi32(pairs, _mm512_set1_epi32(1)), second);
}
static inline void v_store_split(float *p, V even, V odd) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  v_store(p, _mm512_permutex2var_ps(even, first, odd));
  v_store(p + LANES, _mm512_permutex2var_ps(even, _mm512_add_epi32(first, _mm512_set1_epi32(8)), odd));
}
typedef struct Parts {
  W hi, lo;
} Parts;
/* 32 values of f32 as sums of two of bf16. hi: the nearest, to even, but never infinite; lo: the nearest of what is left. So infinity, which is
 * the largest finite number + infinity, is infinite in one of the two only, and a sum of products of both does not subtract infinities. */
static inline Parts w_split(V first, V second) {
  const __m512i high_words = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0);
  const __m512i last_words = _mm512_add_epi16(high_words, _mm512_set1_epi32(16 << 16));
  __m512i hi = (__m512i)_mm512_cvtne2ps_pbh(second, first);
  const __mmask32 is_infinite = _mm512_testn_epi16_mask(_mm512_add_epi16(hi, _mm512_set1_epi16(0x80)), _mm512_set1_epi16(0x7f80)); /* or NaN */
  hi = _mm512_mask_sub_epi16(hi, is_infinite, hi, _mm512_set1_epi16(1));
  const V hi_first = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, high_words, hi));
  const V hi_second = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, last_words, hi));
  return (Parts){hi, (__m512i)_mm512_cvtne2ps_pbh(_mm512_sub_ps(second, hi_second), _mm512_sub_ps(first, hi_first))};
}
static inline W w_zero(void) { return _mm512_setzero_si512(); }
static inline W w_load_first(const uint16_t *p, uint64_t n) { /* n < 32 values, then zeros */
  return _mm512_maskz_loadu_epi16((__mmask32)((1u << n) - 1), p);
}
/* A lane of each, lane after lane. */
static inline void w_store_zipped(uint16_t *p, W a, W b) {
  const W first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1,
                                   32, 0);
  const W last = _mm512_set_epi16(63, 31, 62, 30, 61, 29, 60, 28, 59, 27, 58, 26, 57, 25, 56, 24, 55, 23, 54, 22, 53, 21, 52, 20, 51, 19, 50, 18,
                                  49, 17, 48, 16);
  w_store(p, _mm512_permutex2var_epi16(a, first, b));
  w_store(p + 2 * LANES, _mm512_permutex2var_epi16(a, last, b));
}
