/* Fetching a line of memory. */
#ifndef LEAN_PREFETCH_H
#define LEAN_PREFETCH_H

/* Into L2: no fault wherever it points. */
#define PREFETCH(p) __builtin_prefetch(p, 0, 2)
#define LINE 64

#endif
