/* Arguments of the generated kernels. Every member is 64 bits wide, so that C and Rust agree on the layout everywhere.
 *
 * Contract, cited by number in the SAFETY comments of src/kernel:
 *   P1  Every pointer is valid for the elements that the extents and steps of its struct reach. Nothing else is touched: no byte
 *       outside is read or written, not even lanes that are masked off.
 *   P2  Outputs are disjoint from inputs and weights, or an output equals exactly (same base, same steps) its residual, or the gradient that
 *       gradientstatistics or normgradient reads.
 *   P3  Weights are packed as panels of LEAN_PANEL output channels, padded with zeros ("panel32"):
 *       matrix [panel][k][32], stencil [panel][tap][channel of the group][32], bias, scale and shift [panel][32].
 *   P4  The processor has the kernel's instruction set.
 *   P5  The floating-point environment is the default one (MXCSR, FPCR).
 *   P6  Kernels of the tile unit: the process may use it, and no tiles are configured on this thread. A call configures them and
 *       releases them.
 *
 * Members named `fetch` are memory that is wanted soon. Kernels bring it into the second level of cache and neither read nor write it:
 * any address will do.
 *
 * Steps and extents count elements, not bytes: f32, or bf16 where `void` is written and the kernel's name says so. bf16 kernels take
 * multiples of 32 channels, and kernel rows, as convolutions and in gradients, whose lengths are multiples of n = 2, or on aarch64 of n = 4.
 * Convolutions of bf16 never start from the output. Their matrix holds the rows of a panel in groups of n,
 * [panel][k / n][channel in the order][k % n]; the order of channels, also in stencil, bias, scale and shift, is all even channels of the
 * panel, then all odd ones.
 */
#ifndef LEAN_ABI_H
#define LEAN_ABI_H

#include <stdint.h>

#define LEAN_PANEL 32

/* The largest step of a strided convolution. */
#define LEAN_STRIDE 4

/* Flags of LeanConvArgs and of the elementwise kernels. */
#define LEAN_FROM_OUTPUT 1 /* start from y instead of the bias (a later block of k) */
#define LEAN_SCALE 2       /* y = y * scale + shift, one fused multiply-add */
#define LEAN_RESIDUAL 4    /* then y = y + residual */
#define LEAN_RELU 8        /* then y = y < 0 ? +0 : y */
#define LEAN_ACCUMULATE 16 /* gradients: add to what the output holds */
#define LEAN_WIDE 32       /* convolutions: tiles of two panels, where the kernel has them; the same result */

/* Most pixels of one call of a convolution: the bits of a mask. */
#define LEAN_PIXELS 64

/* Runs of memory that one call of a convolution, or of the gradient of a matrix, can fetch. */
#define LEAN_FETCHES 8
#define LEAN_GRADIENT_FETCHES 2

/* Up to LEAN_PIXELS output pixels of a convolution, equally spaced in the input, the output and the residual. */
typedef struct LeanConvArgs {
  const void *x[7];         /* per row of the matrix's kernel: what it reads at the first pixel, from k = 0 on; lean kernels have one */
  int64_t x_step;           /* from what a pixel reads to what the next one reads */
  const void *tap[25];      /* lean kernels: per tap, the neighbour of the first pixel, channel 0 */
  uint64_t inside[25];      /* lean kernels: per tap, bit i is set if the neighbour of pixel i lies inside the image; others read +0 */
  const void *matrix;       /* P3 */
  const float *stencil;     /* P3; lean kernels only */
  const float *bias;        /* P3 */
  const float *scale;       /* P3; with LEAN_SCALE */
  const float *shift;       /* P3; with LEAN_SCALE */
  void *y;                  /* the first pixel's channel 0 */
  int64_t y_step;
  const void *residual;     /* with LEAN_RESIDUAL */
  int64_t residual_step;
  uint64_t pixels;          /* 1..LEAN_PIXELS */
  uint64_t taps;            /* grouped kernels: taps of the stencil */
  uint64_t group;           /* grouped kernels: channels that a tap reads, 2, 4, 8, 16 or 32 */
  uint64_t rows;            /* kernel rows of a dense kernel, 1..7 */
  uint64_t row_length;      /* values of one kernel row: input channels x kernel columns */
  uint64_t k0, k1;          /* range of each kernel row that this call adds */
  uint64_t panel0, panel1;  /* range of panels */
  uint64_t channels;        /* valid output channels */
  uint64_t flags;
  uint64_t fetch[8];        /* addresses of LEAN_FETCHES runs */
  uint64_t fetch_lines[8];  /* cache lines of 64 bytes of each */
  /* Kernels of the tile unit take rows of an image instead of a run of pixels: `tap`, `inside`, `x`, `y`, `residual`, `pixels`, `k0` and
   * `k1` mean nothing to them, and they add all inputs. */
  uint64_t height, width;    /* output rows, and pixels of each */
  uint64_t stride;           /* input pixels, and rows, from an output to the next */
  uint64_t x_width;          /* lean kernels: input pixels of a row */
  /* Pixel 0 of each input row, from the uppermost that the first output row reads to the lowest of the last one. Lean kernels: 0 for a row
   * outside the image. */
  const void *const *x_rows;
  void *const *y_rows;       /* of `height` rows */
  const void *const *residual_rows; /* with LEAN_RESIDUAL */
} LeanConvArgs;

/* Gradient of a 1x1 or dense convolution's matrix: dw[k][o] = sum over rows and pixels of x[pixel][k] * g[pixel][o]. */
typedef struct LeanWeightGradientArgs {
  const void *x;
  int64_t x_step, x_row;    /* from a pixel, and from a row of pixels, to the next */
  const void *g;
  int64_t g_step, g_row;
  float *dw;                /* P3, matrix layout: [panel][row_length][32], here at the first value of one kernel row */
  uint64_t panel_step;      /* from a panel to the next */
  uint64_t rows, pixels;
  uint64_t k0, k1;          /* range of k */
  uint64_t panel0, panel1;
  uint64_t channels;        /* valid output channels */
  uint64_t flags;
  uint64_t fetch[2];        /* addresses of LEAN_GRADIENT_FETCHES runs */
  uint64_t fetch_bytes[2];  /* length of each */
} LeanWeightGradientArgs;

/* Gradients of a stencil and of the bias over rows first..last of one image. Taps outside the image add nothing. */
typedef struct LeanStencilGradientArgs {
  const void *x, *g;        /* row 0 of the image: [height][width][channels] */
  float *dstencil;          /* P3, stencil layout */
  float *dbias;             /* P3, bias layout */
  uint64_t first, last;     /* range of rows */
  uint64_t height, width, channels;
  uint64_t flags;
} LeanStencilGradientArgs;

/* Kernels that work on each value, or on each channel over a run of pixels. Which members a kernel uses stands in its template. */
typedef struct LeanElementwiseArgs {
  const void *a, *b, *c;
  void *y;                  /* of globalpool f32, whatever a is */
  float *y2;
  const float *p, *q, *r;   /* one value per channel */
  double *sum, *sum2;       /* one value per channel */
  uint64_t pixels, channels;
  uint64_t width;           /* pools: output pixels of a row */
  int64_t row;              /* pools: from an input row to the next */
  uint64_t flags;
  double factor[4];         /* update: learning rate, momentum, weight decay, gradient factor; pools: factor */
} LeanElementwiseArgs;

#endif
