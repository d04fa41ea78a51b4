/* Fetching memory while the gradient of a matrix is computed: the runs of a call, one after the other, as one stream. */
#ifndef LEAN_GRADIENT_FETCH_H
#define LEAN_GRADIENT_FETCH_H

#include "lean_abi.h"
#include "prefetch.h"

typedef struct Fetch {
  const LeanWeightGradientArgs *args;
  const char *next, *end; /* of the current run */
  uint64_t step;          /* bytes from a prefetch to the next, at most a line */
  uint64_t prefetches;    /* in a turn: none, or a power of two */
  int run;                /* the run after the current one */
} Fetch;

/* Turns to the next run, or stops after the last one. */
static inline void next_run(Fetch *fetch) {
  const LeanWeightGradientArgs *a = fetch->args;
  while (fetch->run < LEAN_GRADIENT_FETCHES && a->fetch_bytes[fetch->run] == 0) fetch->run++;
  if (fetch->run < LEAN_GRADIENT_FETCHES) {
    fetch->next = (const char *)(uintptr_t)a->fetch[fetch->run];
    fetch->end = fetch->next + a->fetch_bytes[fetch->run++];
  } else {
    fetch->next = (const char *)a->x;
    fetch->end = (const char *)UINTPTR_MAX;
    fetch->step = fetch->prefetches = 0;
  }
}

/* Spreads the runs over so many turns of a kernel's loop, each of which has at most so many prefetches. A sixteenth is to spare, since runs
 * change between tiles only. */
static inline void begin_fetch(Fetch *fetch, const LeanWeightGradientArgs *a, uint64_t turns, uint64_t most) {
  uint64_t bytes = 0;
  for (int run = 0; run < LEAN_GRADIENT_FETCHES; run++) bytes += a->fetch_bytes[run];
  bytes += bytes / 16;
  *fetch = (Fetch){.args = a, .step = LINE, .prefetches = 1};
  if (bytes == 0 || turns == 0) fetch->run = LEAN_GRADIENT_FETCHES;
  while (fetch->prefetches < most && fetch->prefetches * LINE * turns < bytes) fetch->prefetches *= 2;
  if (fetch->prefetches * LINE * turns > bytes) fetch->step = bytes / (fetch->prefetches * turns) + 1;
  next_run(fetch);
}

/* Between tiles: whether the current run is over. */
static inline void continue_fetch(Fetch *fetch) {
  if (fetch->next >= fetch->end) next_run(fetch);
}

#endif
