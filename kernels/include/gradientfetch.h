/* What gradients of a matrix fetch while they compute. */
#ifndef LEAN_GRADIENT_FETCH_H
#define LEAN_GRADIENT_FETCH_H

#include "lean_abi.h"
#include "prefetch.h"

/* What is wanted next, a step of so many bytes at every visit. */
typedef struct Fetch {
  const char *next[LEAN_GRADIENT_FETCHES];
  uint64_t step[LEAN_GRADIENT_FETCHES];
} Fetch;

/* Steps that come to the end of the runs of a call after so many visits: of a pixel, or a group of pixels, by a block of the matrix. */
static inline void begin_fetch(Fetch *fetch, const LeanWeightGradientArgs *a, uint64_t visits) {
  for (int run = 0; run < LEAN_GRADIENT_FETCHES; run++) {
    /* Nothing to fetch: a line that is at hand. */
    fetch->next[run] = a->fetch_bytes[run] ? (const char *)(uintptr_t)a->fetch[run] : (const char *)a->x;
    fetch->step[run] = visits ? a->fetch_bytes[run] / visits : 0;
  }
}

#endif
