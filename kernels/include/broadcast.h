/* One value of memory in all lanes. Included after the header of the instruction set. */
#ifndef LEAN_BROADCAST_H
#define LEAN_BROADCAST_H

/* Value k of the pixel at x + steps * step; steps: 0, 1 or 2. On x86-64 the address is one operand, base + index + constant: gcc would compute
 * such sums ahead of a loop, and keep those that do not fit into its registers on the stack or in vector registers. The last operand, which
 * no instruction names, tells it what memory is read. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define BROADCAST(x, step, steps, k)                                                                                              \
  __extension__({                                                                                                                 \
    V lanes_;                                                                                                                     \
    if (steps)                                                                                                                    \
      __asm__("vbroadcastss %c4(%1, %2, %c3), %0"                                                                                 \
              : "=v"(lanes_)                                                                                                      \
              : "r"(x), "r"(step), "i"(4 * ((steps) ? (steps) : 1)), "i"(4 * (k)), "m"(*(const float (*)[])(x)));                 \
    else                                                                                                                          \
      __asm__("vbroadcastss %c2(%1), %0" : "=v"(lanes_) : "r"(x), "i"(4 * (k)), "m"(*(const float (*)[])(x)));                    \
    lanes_;                                                                                                                       \
  })
#else
#define BROADCAST(x, step, steps, k) v_set1((x)[(steps) * (step) + (k)])
#endif

#endif
