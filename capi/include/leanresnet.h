/*
 * leanresnet: lean convolutional residual networks on CPUs. The C API.
 *
 *     leanresnet_error error;
 *     leanresnet_model *model = NULL;
 *     leanresnet_session *session = NULL;
 *     if (leanresnet_model_load("model.safetensors", &model, &error) != LEANRESNET_STATUS_OK ||
 *         leanresnet_session_create(model, NULL, &session, &error) != LEANRESNET_STATUS_OK ||
 *         leanresnet_session_run_u8(session, count, pixels, count * 3 * 32 * 32, LEANRESNET_LAYOUT_NHWC,
 *                                   logits, count * 10, &error) != LEANRESNET_STATUS_OK) {
 *       fprintf(stderr, "%s\n", error.message);
 *     }
 *     leanresnet_session_free(session);
 *     leanresnet_model_free(model);
 *
 * Pointers. One that a function reads, or writes results through, has to be valid for as many elements as the argument
 * beside it says (one, if there is none) until the function returns, aligned as its type asks for, and nobody else may
 * write to that memory meanwhile. Places for results need not be initialised, and do not overlap anything else. NULL is
 * refused with LEANRESNET_STATUS_USAGE unless a function allows it; an array of length 0 may be NULL.
 *
 * Handles. leanresnet_model and leanresnet_session are made by functions that write one to a place of the caller's, and
 * released once by the function that its documentation names. A place for a handle is NULL after a failure, so that
 * programs can release it all the same. Everything else belongs to the caller, except for texts (const char *) that
 * functions give out: they belong to the library, and live as long as the function says.
 *
 * Errors. Functions return a leanresnet_status. Those that can fail for many reasons take a leanresnet_error besides, in
 * which they write one sentence. It lies in the caller's memory: nothing has to be released, and it is the same whether
 * the caller stays on a thread of the system, or moves between them as goroutines do. A defect of the library is a
 * status too, LEANRESNET_STATUS_BUG: its panic is caught, after a report on stderr. Memory that the system does not have
 * ends the process.
 *
 * Threads. A model is used by any number of threads at the same time. A session does one run at a time; threads that are
 * to run at the same time have a session each (leanresnet_session_fork). Threads of pools live as long as the process
 * or, those of a session with a number of threads of its own, its last fork. A child of fork() has none of them: it has
 * to make its sessions itself. Once loaded, the shared library stays in memory: dlclose() does nothing.
 *
 * Numbers. Runs expect the processor's floating-point modes as a program starts with them: rounding to nearest, subnormal
 * numbers kept.
 *
 * ABI. Within one minor version (0.1.x) programs that were compiled with this header run with every shared library. The
 * numbers of constants, the size of leanresnet_error, and the members of leanresnet_session_options that are there do
 * not change; functions, constants and members at the end are added.
 */

#ifndef LEANRESNET_H
#define LEANRESNET_H

/* Generated from capi/src by 'LEANRESNET_BLESS=1 cargo test -p leanresnet-capi --test header': edit it there. */

#include <stddef.h>
#include <stdint.h>

/** The version of this header. leanresnet_version() gives that of the library. */
#define LEANRESNET_VERSION "0.1.0"
#define LEANRESNET_VERSION_MAJOR 0
#define LEANRESNET_VERSION_MINOR 1
#define LEANRESNET_VERSION_PATCH 0

/** The defaults of leanresnet_session_options, which is below. */
#define LEANRESNET_SESSION_OPTIONS_INIT {sizeof(leanresnet_session_options), 0, 0, 0, 0}


/**
 * What a function returns. The numbers are those of the command-line tool's exit codes.
 */
typedef enum {
  /**
   * It is done.
   */
  LEANRESNET_STATUS_OK = 0,
  /**
   * The system failed: a file that cannot be read.
   */
  LEANRESNET_STATUS_FAILURE = 1,
  /**
   * The call is wrong: NULL, a length that does not fit, an option out of range, an instruction set that this machine lacks.
   */
  LEANRESNET_STATUS_USAGE = 2,
  /**
   * The model is damaged, of another format, or no model at all.
   */
  LEANRESNET_STATUS_DATA = 3,
  /**
   * Training diverged. No function of this header trains; the number is taken.
   */
  LEANRESNET_STATUS_DIVERGED = 4,
  /**
   * A defect of leanresnet, whose panic was caught. Please report it with the error's message.
   */
  LEANRESNET_STATUS_BUG = 101,
} leanresnet_status;

/**
 * A network with its weights, how bytes become its inputs, and the names of its classes. It never changes.
 *
 * Thread safety: any number of threads may use one model at the same time. Its release must be the last use.
 */
typedef struct leanresnet_model leanresnet_model;

/**
 * A model that is ready to run: packed weights, kernels, memory, threads. It keeps what it needs of the model.
 *
 * Thread safety: one run at a time. A second one at the same time is refused, never mixed with the first; threads that are to run at
 * the same time have a session each, by leanresnet_session_fork(). The release must be the last use.
 */
typedef struct leanresnet_session leanresnet_session;

/**
 * Why a function failed. It belongs to the caller, usually on the stack, and needs no preparation and no release.
 *
 * Its size is part of the ABI and never changes.
 */
typedef struct {
  /**
   * One sentence in UTF-8 that ends with NUL: what is wrong, what was expected, what came. Empty after LEANRESNET_STATUS_OK. A
   * longer one is cut and ends with "...".
   */
  char message[1024];
} leanresnet_error;

/**
 * The type of activations and matrices: one of the constants LEANRESNET_PRECISION_*.
 */
typedef int32_t leanresnet_precision;

/**
 * Options of a session. LEANRESNET_SESSION_OPTIONS_INIT sets size and, for every option, 0, which stands for its default:
 *
 *     leanresnet_session_options options = LEANRESNET_SESSION_OPTIONS_INIT;
 *     options.threads = 1;
 *
 * Later versions may add options at the end. size tells the library which ones a program knows: those that it does not know keep
 * their defaults, and a program that sets one that the library does not know gets LEANRESNET_STATUS_USAGE.
 */
typedef struct {
  /**
   * sizeof(leanresnet_session_options).
   */
  size_t size;
  /**
   * The most images that run at a time, up to 1048576; larger batches are cut up. Memory grows with it. 0: 64.
   */
  size_t max_batch;
  /**
   * The threads that work on a run, up to 4096, the caller's among them. 1: the caller's alone. More: a pool of this session and
   * its forks. 0: one pool for the whole process, with LEANRESNET_NUM_THREADS threads if that environment variable is set, else as
   * many as the process may use.
   */
  size_t threads;
  /**
   * One of LEANRESNET_PRECISION_*. 0: LEANRESNET_PRECISION_F32.
   */
  leanresnet_precision precision;
  /**
   * Has to be 0.
   */
  uint32_t reserved;
} leanresnet_session_options;

/**
 * The order of the numbers of an image: one of the constants LEANRESNET_LAYOUT_*.
 */
typedef int32_t leanresnet_layout;

/**
 * 24 bits: results as the model says.
 */
#define LEANRESNET_PRECISION_F32 0

/**
 * bf16, 8 bits: half the memory, and faster where the processor multiplies it; many times slower elsewhere.
 */
#define LEANRESNET_PRECISION_BF16 1

/**
 * bf16 where a measurement, once per process and some 5 ms, says that it is at least 1.1 times faster; else f32.
 */
#define LEANRESNET_PRECISION_AUTO 2

/**
 * Near f32: three products of bf16 for each of f32 where the processor has a tile unit (AMX); else f32.
 */
#define LEANRESNET_PRECISION_BF16X3 3

/**
 * The same where a measurement says that it is at least 1.1 times faster; else f32.
 */
#define LEANRESNET_PRECISION_AUTO_NEAR_F32 4

/**
 * [images, channels, height, width], the last one fastest: as PyTorch holds images.
 */
#define LEANRESNET_LAYOUT_NCHW 0

/**
 * [images, height, width, channels], the last one fastest: as decoders of image files give them.
 */
#define LEANRESNET_LAYOUT_NHWC 1

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Reads a model file, as leanresnet trains and imports them.
 *
 * path: the file's name, ending with NUL, in the bytes that the system has for it; UTF-8 on Windows.
 * model: gets a handle that the caller releases by leanresnet_model_free(); NULL after a failure.
 * error: gets the reason of a failure; may be NULL.
 *
 * Returns LEANRESNET_STATUS_FAILURE if the file cannot be read, LEANRESNET_STATUS_DATA if it holds no model.
 * Thread safety: any thread, at any time.
 */
leanresnet_status leanresnet_model_load(const char *path, leanresnet_model **model, leanresnet_error *error);

/**
 * Reads the content of a model file from memory.
 *
 * bytes, length: the content, at any alignment. It is copied; the caller may release it at once.
 * model: gets a handle that the caller releases by leanresnet_model_free(); NULL after a failure.
 * error: gets the reason of a failure; may be NULL.
 *
 * The bytes may be anything: what is no model, damaged or made to do harm is LEANRESNET_STATUS_DATA.
 * Thread safety: any thread, at any time.
 */
leanresnet_status leanresnet_model_from_memory(const uint8_t *bytes,
                                               size_t length,
                                               leanresnet_model **model,
                                               leanresnet_error *error);

/**
 * Releases a model. Sessions that were made of it go on. NULL is allowed.
 *
 * Thread safety: any thread; no other call may use the model at the same time or later.
 */
void leanresnet_model_free(leanresnet_model *model);

/**
 * The extents of the images that a model takes: channels, height and width.
 *
 * Returns LEANRESNET_STATUS_USAGE if a pointer is NULL.
 * Thread safety: any thread, at any time.
 */
leanresnet_status leanresnet_model_input(const leanresnet_model *model,
                                         size_t *channels,
                                         size_t *height,
                                         size_t *width);

/**
 * The number of classes: of the logits that an image gets.
 *
 * Returns LEANRESNET_STATUS_USAGE if a pointer is NULL.
 * Thread safety: any thread, at any time.
 */
leanresnet_status leanresnet_model_classes(const leanresnet_model *model, size_t *classes);

/**
 * The name of a class.
 *
 * class_index: from 0, below the number of classes.
 * name: gets a text in UTF-8 that ends with NUL; an empty one if the model has no names. It belongs to the model and lives as long.
 *
 * Returns LEANRESNET_STATUS_USAGE if a pointer is NULL or there is no such class.
 * Thread safety: any thread, at any time.
 */
leanresnet_status leanresnet_model_class_name(const leanresnet_model *model,
                                              size_t class_index,
                                              const char **name);

/**
 * How leanresnet_session_run_u8() makes inputs of bytes, and a caller of leanresnet_session_run_f32() should: a byte of channel c
 * becomes (byte / 255 - mean[c]) / standard_deviation[c].
 *
 * mean, standard_deviation: arrays of the caller's that get one number per channel.
 * channels: their length, the model's number of channels.
 * resize: gets the length that the shorter side of a picture is scaled to before its centre is cut out; 0 where pictures are scaled
 * to the model's height and width themselves. Scaling is up to the caller.
 *
 * Returns LEANRESNET_STATUS_USAGE if a pointer is NULL or the length another one, and for a model that was trained on numbers and knows
 * no map from bytes.
 * Thread safety: any thread, at any time.
 */
leanresnet_status leanresnet_model_preprocess(const leanresnet_model *model,
                                              float *mean,
                                              float *standard_deviation,
                                              size_t channels,
                                              size_t *resize);

/**
 * Makes a model ready to run: packs its weights, picks kernels for this machine, takes memory and threads.
 *
 * options: NULL for the defaults.
 * session: gets a handle that the caller releases by leanresnet_session_free(); NULL after a failure.
 * error: gets the reason of a failure; may be NULL.
 *
 * The environment variable LEANRESNET_ISA forces an instruction set; LEANRESNET_STATUS_USAGE if this machine does not have it.
 * Thread safety: any thread, at any time.
 */
leanresnet_status leanresnet_session_create(const leanresnet_model *model,
                                            const leanresnet_session_options *options,
                                            leanresnet_session **session,
                                            leanresnet_error *error);

/**
 * Makes another session on the same packed weights and the same pool of threads, with memory of its own, to run at the same time.
 *
 * fork: gets a handle that the caller releases by leanresnet_session_free(), before or after that of session; NULL after a failure.
 * error: gets the reason of a failure; may be NULL.
 *
 * Thread safety: any thread, at any time. It waits for a run of session that is under way.
 */
leanresnet_status leanresnet_session_fork(const leanresnet_session *session,
                                          leanresnet_session **fork,
                                          leanresnet_error *error);

/**
 * Releases a session. NULL is allowed.
 *
 * Thread safety: any thread; no other call may use the session at the same time or later.
 */
void leanresnet_session_free(leanresnet_session *session);

/**
 * Runs a batch of any size of images of f32, normalised as leanresnet_model_preprocess() says.
 *
 * count: the number of images; 0 is allowed.
 * images, images_length: their numbers, and how many there are: count x channels x height x width.
 * layout: one of LEANRESNET_LAYOUT_*.
 * logits, logits_length: an array of the caller's that gets the logits, [count, classes], and its length: count x classes.
 * error: gets the reason of a failure; may be NULL.
 *
 * Lengths are numbers of elements, not of bytes. After a failure the logits are as they were.
 * An image gets the same bits at any place of any batch, on any number of threads. The calling thread works too. After the first run
 * with a batch of some size, runs of up to that size allocate nothing but a few words for the threads of a pool.
 * Thread safety: one run of a session at a time; another one at the same time is refused with LEANRESNET_STATUS_USAGE.
 */
leanresnet_status leanresnet_session_run_f32(leanresnet_session *session,
                                             size_t count,
                                             const float *images,
                                             size_t images_length,
                                             leanresnet_layout layout,
                                             float *logits,
                                             size_t logits_length,
                                             leanresnet_error *error);

/**
 * Runs a batch of any size of images of bytes, which the model normalises as leanresnet_model_preprocess() says.
 *
 * Everything else is as with leanresnet_session_run_f32().
 */
leanresnet_status leanresnet_session_run_u8(leanresnet_session *session,
                                            size_t count,
                                            const uint8_t *images,
                                            size_t images_length,
                                            leanresnet_layout layout,
                                            float *logits,
                                            size_t logits_length,
                                            leanresnet_error *error);

/**
 * The instruction set that a session runs on: "portable", "neon", "neonbf16", "avx2", "avx512", "avx512bf16" or "amx"; later versions may know more.
 *
 * name: gets a text that ends with NUL. It belongs to the session and lives as long.
 *
 * Returns LEANRESNET_STATUS_USAGE if a pointer is NULL.
 * Thread safety: any thread, at any time.
 */
leanresnet_status leanresnet_session_instruction_set(const leanresnet_session *session,
                                                     const char **name);

/**
 * The precision that a session computes in: the one that was asked for, the one that a measurement chose, or f32 where there are no kernels for
 * LEANRESNET_PRECISION_BF16X3.
 *
 * Returns LEANRESNET_STATUS_USAGE if a pointer is NULL.
 * Thread safety: any thread, at any time.
 */
leanresnet_status leanresnet_session_precision(const leanresnet_session *session,
                                               leanresnet_precision *precision);

/**
 * A status in a few words, for programs that pass no leanresnet_error.
 *
 * Any number may be passed. The text is never NULL and lives as long as the program.
 * Thread safety: any thread, at any time.
 */
const char *leanresnet_status_text(int status);

/**
 * The version of the library that runs, as in LEANRESNET_VERSION, which is that of the header.
 *
 * The text is never NULL and lives as long as the program.
 * Thread safety: any thread, at any time.
 */
const char *leanresnet_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LEANRESNET_H */
