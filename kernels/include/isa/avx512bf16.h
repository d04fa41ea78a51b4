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
