/* What convolutions fetch while they compute. */
#ifndef LEAN_FETCH_H
#define LEAN_FETCH_H

#include "lean_abi.h"
#include "prefetch.h"

/* What is wanted next: the runs of memory of the call, one after the other, some steps at every turn of the loops over k. Spread like
 * this, the lines come while the tile multiplies; many at once would make its own loads wait for them. */
typedef struct Run {
  const char *start, *end;
} Run;
typedef struct Fetch {
  Run runs[LEAN_FETCHES + 1]; /* the last one has no end */
  const Run *run;             /* the one under way */
  const char *next;
  uint64_t step;              /* bytes, at most a line; 0: nothing is wanted */
  uint64_t at_once;           /* bytes at the beginning of every tile: what is too much for the steps */
} Fetch;

/* A step, on copies of the members in registers: what a loop over k stores would wait behind outputs on their way to memory. No call: it
 * would put the accumulators on the stack. */
#define FETCH                            \
  PREFETCH(next);                        \
  next += step;                          \
  if (__builtin_expect(next >= end, 0)) { \
    fetch->run++;                        \
    next = fetch->run->start;            \
    end = fetch->run->end;               \
  }

/* Sorts out the runs of a call of so many tiles, which make so many steps together, and how far a step goes: the last one comes to the end of
 * the last run. */
static void begin_fetch(Fetch *fetch, const LeanConvArgs *a, uint64_t tiles, uint64_t steps) {
  Run *run = fetch->runs;
  uint64_t bytes = 0;
  for (int index = 0; index < LEAN_FETCHES; index++) {
    if (a->fetch_lines[index] == 0) continue;
    run->start = (const char *)(uintptr_t)a->fetch[index];
    run->end = run->start + LINE * a->fetch_lines[index];
    bytes += LINE * a->fetch_lines[index];
    run++;
  }
  run->start = (const char *)a->matrix;
  run->end = (const char *)UINTPTR_MAX;
  fetch->run = fetch->runs;
  fetch->next = fetch->run->start;
  fetch->step = fetch->at_once = 0;
  if (bytes == 0 || tiles == 0) return;
  if (bytes <= LINE * steps) {
    fetch->step = (bytes + steps - 1) / steps;
  } else {
    fetch->step = LINE;
    fetch->at_once = (bytes - LINE * steps + tiles - 1) / tiles;
  }
}

static void fetch_at_once(Fetch *fetch) {
  const char *next = fetch->next, *end = fetch->run->end;
  const uint64_t step = LINE;
  for (uint64_t done = 0; done < fetch->at_once; done += step) {
    FETCH
  }
  fetch->next = next;
}

#endif
