/* The tile unit (AMX-TILE, AMX-BF16) beside the vectors of avx512bf16.h: eight tiles of 16 rows of 64 bytes. A dot product of tiles takes 16
 * cycles for 16 x 16 sums over 32 inputs, a load 8. Subnormals are zero on both sides, whatever MXCSR says.
 *
 * Own instructions instead of intrinsics: those of gcc 12 do not say what memory they read, so that stores before them may be left out. The
 * compiler knows nothing of tiles, so their numbers are literals.
 *
 * With LEAN_TILE_MODEL the same operations are plain C, for tests on processors without the unit. */
#include "avx512bf16.h"

#define TILE_ROWS 16
#define TILE_BYTES 64

/* Some lanes of bf16: `count` of them from `first` on. The others are not read. */
typedef __mmask32 WM;
static inline WM wm_range(uint64_t first, uint64_t count) { return (WM)(((UINT64_C(1) << count) - 1) << first); }
static inline W w_load_over(W x, const uint16_t *p, WM m) { return _mm512_mask_loadu_epi16(x, m, p); } /* the others stay */

/* 128 bits of each of four pixels. */
static inline W w_load_quarters(const uint16_t *from, const int64_t *at) {
  W quarters = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(from + at[0])));
  quarters = _mm512_inserti32x4(quarters, _mm_loadu_si128((const __m128i *)(from + at[4])), 1);
  quarters = _mm512_inserti32x4(quarters, _mm_loadu_si128((const __m128i *)(from + at[8])), 2);
  return _mm512_inserti32x4(quarters, _mm_loadu_si128((const __m128i *)(from + at[12])), 3);
}
/* Two neighbouring values of each of 16 pixels, for eight values: pairs[j] has values 2j and 2j + 1. */
static inline void w_load_pairs(const uint16_t *from, const int64_t *at, W pairs[4]) {
  const W a = w_load_quarters(from, at), b = w_load_quarters(from, at + 1), c = w_load_quarters(from, at + 2), d = w_load_quarters(from, at + 3);
  const W ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
  const W ab_high = _mm512_unpackhi_epi32(a, b), cd_high = _mm512_unpackhi_epi32(c, d);
  pairs[0] = _mm512_unpacklo_epi64(ab, cd);
  pairs[1] = _mm512_unpackhi_epi64(ab, cd);
  pairs[2] = _mm512_unpacklo_epi64(ab_high, cd_high);
  pairs[3] = _mm512_unpackhi_epi64(ab_high, cd_high);
}
/* 32 values of each of 32 pixels, transposed: [value][i] has pixels i and i + 16 side by side. */
static inline void w_store_transposed(uint16_t *p, const uint16_t *from, const int64_t *at) {
  for (int value = 0; value < 2 * LANES; value += 8) {
    W first[4], second[4];
    w_load_pairs(from + value, at, first);
    w_load_pairs(from + value, at + 16, second);
    for (int pair = 0; pair < 4; pair++, p += 4 * LANES) {
      w_store(p, _mm512_mask_blend_epi16(0xaaaaaaaa, first[pair], _mm512_slli_epi32(second[pair], 16)));
      w_store(p + 2 * LANES, _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(first[pair], 16), second[pair]));
    }
  }
}

/* Constants of what is below, which have to stay in registers: gcc would make them anew at each use, on the port of shuffles. */
typedef struct WordConstants {
  W even, odd;               /* an order of bytes, and a mask */
  W relu_offset, relu_limit; /* as numbers of 16 bits without sign */
} WordConstants;
#if defined(__GNUC__) && !defined(__clang__)
#define KEEP(x) __asm__("" : "+v"(x))
#else
#define KEEP(x)
#endif
static inline __attribute__((always_inline)) WordConstants w_constants(int has_relu) {
  WordConstants c = {_mm512_set4_epi32(0x0d0cffff, 0x0908ffff, 0x0504ffff, 0x0100ffff), _mm512_set1_epi32((int)0xffff0000),
                     _mm512_set1_epi16(0x7fff), _mm512_set1_epi16(has_relu ? 0x7f80 : 0)};
  KEEP(c.even);
  KEEP(c.odd);
  KEEP(c.relu_offset);
  KEEP(c.relu_limit);
  return c;
}
/* v_even on the port of shuffles, and v_odd: beside tiles, shifts have only the port of FMA. */
static inline V v_even_by(const WordConstants *c, W x) { return _mm512_castsi512_ps(_mm512_shuffle_epi8(x, c->even)); }
static inline V v_odd_by(const WordConstants *c, W x) { return _mm512_castsi512_ps(_mm512_and_si512(x, c->odd)); }
/* With ReLU, y < 0 ? +0 : y of rounded words: 0x8001 to 0xff80, the bits of negative numbers and of -inf, become zero; -0 and NaN stay.
 * On f32 it would take the port of FMA twice. */
static inline W w_relu(const WordConstants *c, W x) {
  return _mm512_maskz_mov_epi16(_mm512_cmpge_epu16_mask(_mm512_add_epi16(x, c->relu_offset), c->relu_limit), x);
}

#ifndef LEAN_TILE_MODEL

/* Palette 1; per tile its rows and the bytes of each. */
typedef struct TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
} TileConfig;
static const TileConfig tile_config __attribute__((aligned(64))) = {
    .palette = 1,
    .bytes = {TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES},
    .rows = {TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS},
};

#define TILES_CONFIGURE() __asm__ volatile("ldtilecfg %0" : : "m"(tile_config) : "memory")
/* The same with `rows` rows in tiles 0 to 5, of sums and inputs, and all in 6 and 7, of a matrix. */
static inline void tiles_configure_rows(uint64_t rows) {
  TileConfig config = tile_config;
  for (int tile = 0; tile < 6; tile++) config.rows[tile] = (uint8_t)rows;
  __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
}
#define TILES_CONFIGURE_ROWS(rows) tiles_configure_rows(rows)
#define TILES_RELEASE() __asm__ volatile("tilerelease" : : : "memory")
/* Rows from p on, `step` bytes apart. */
#define TILE_LOAD(tile, p, step) \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(p), "r"((int64_t)(step)) : "memory")
#define TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile : : : "memory")
#define TILE_STORE(tile, p, step) \
  __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(p), "r"((int64_t)(step)) : "memory")
/* sums += the dot products of pairs of a's rows and b's columns. */
#define TILE_DOT(sums, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sums : : : "memory")

#else

typedef union Tile {
  float f32[TILE_ROWS][TILE_BYTES / 4];
  uint16_t bf16[TILE_ROWS][TILE_BYTES / 2];
} Tile;
static _Thread_local Tile tiles[8];
static _Thread_local int tiles_configured;
static _Thread_local int rows_of_tiles[8];

/* What the unit does to a program at fault. */
static inline void tiles_need(int configured) {
  if (tiles_configured != configured) __builtin_trap();
}
static inline void tiles_configure_rows(uint64_t rows) {
  tiles_need(0); /* a call that did not release them */
  tiles_configured = 1;
  for (int tile = 0; tile < 8; tile++) rows_of_tiles[tile] = tile < 6 ? (int)rows : TILE_ROWS;
  __builtin_memset(tiles, 0, sizeof tiles);
}
static inline void tiles_release(void) {
  tiles_need(1);
  tiles_configured = 0;
}
static inline void tile_load(Tile *tile, const void *p, int64_t step) {
  tiles_need(1);
  __builtin_memset(tile, 0, sizeof *tile);
  for (int row = 0; row < rows_of_tiles[tile - tiles]; row++) __builtin_memcpy(tile->bf16[row], (const char *)p + row * step, TILE_BYTES);
}
static inline void tile_zero(Tile *tile) {
  tiles_need(1);
  __builtin_memset(tile, 0, sizeof *tile);
}
static inline void tile_store(const Tile *tile, void *p, int64_t step) {
  tiles_need(1);
  for (int row = 0; row < rows_of_tiles[tile - tiles]; row++) __builtin_memcpy((char *)p + row * step, tile->bf16[row], TILE_BYTES);
}
static inline float tile_widen(uint16_t x) { /* subnormals are zero */
  const uint32_t bits = (x & 0x7f80) == 0 ? (uint32_t)(x & 0x8000) << 16 : (uint32_t)x << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
static inline float tile_flush(float x) { return x < 0x1p-126f && x > -0x1p-126f ? x * 0.0f : x; }
/* As the manual has TDPBF16PS: the first values of all pairs in one chain of fused multiply-adds from zero, the second ones in another; then
 * their sum is added. */
static inline void tile_dot(Tile *sums, const Tile *a, const Tile *b) {
  tiles_need(1);
  tiles_need(rows_of_tiles[sums - tiles] == rows_of_tiles[a - tiles] && rows_of_tiles[b - tiles] == TILE_ROWS);
  for (int row = 0; row < rows_of_tiles[sums - tiles]; row++) {
    for (int column = 0; column < TILE_BYTES / 4; column++) {
      float chain[2] = {0.0f, 0.0f};
      for (int pair = 0; pair < TILE_BYTES / 4; pair++) {
        for (int second = 0; second < 2; second++) {
          const float x = tile_widen(a->bf16[row][2 * pair + second]), y = tile_widen(b->bf16[pair][2 * column + second]);
          chain[second] = tile_flush(__builtin_fmaf(x, y, chain[second]));
        }
      }
      float *sum = &sums->f32[row][column];
      *sum = tile_flush(tile_flush(*sum) + tile_flush(chain[0] + chain[1]));
    }
  }
}

#define TILES_CONFIGURE() tiles_configure_rows(TILE_ROWS)
#define TILES_CONFIGURE_ROWS(rows) tiles_configure_rows(rows)
#define TILES_RELEASE() tiles_release()
#define TILE_LOAD(tile, p, step) tile_load(&tiles[tile], p, step)
#define TILE_ZERO(tile) tile_zero(&tiles[tile])
#define TILE_STORE(tile, p, step) tile_store(&tiles[tile], p, step)
#define TILE_DOT(sums, a, b) tile_dot(&tiles[sums], &tiles[a], &tiles[b])

#endif
