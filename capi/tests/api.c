/*
 * The C API from C, for `.ci/capi`, which runs this under memory checkers:
 *
 *     api images MODEL IMAGES.npy    writes images for MODEL
 *     api check MODEL LOGITS.npy     tries every function with those images; LOGITS.npy is what `leanresnet predict` made of them
 */
#define _POSIX_C_SOURCE 200809L
#include "leanresnet.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMAGES 5
/* Of every batch, for each of two threads: few, because they run under valgrind too. */
#define RUNS 2

#define CHECK(condition)                                                     \
  do {                                                                       \
    if (!(condition)) {                                                      \
      fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #condition);    \
      exit(1);                                                               \
    }                                                                        \
  } while (0)

/* A call that has to be done, with the reason if it is not. */
#define DONE(call)                                                                       \
  do {                                                                                   \
    if ((call) != LEANRESNET_STATUS_OK) {                                                \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, error.message);      \
      exit(1);                                                                           \
    }                                                                                    \
    CHECK(error.message[0] == '\0');                                                     \
  } while (0)

/* A call that has to be refused with a status and a text that holds a word. */
#define REFUSED(call, status, word)                     \
  do {                                                  \
    CHECK((call) == (status));                          \
    CHECK(strstr(error.message, (word)) != NULL);       \
  } while (0)

static leanresnet_error error;

static void *allocate(size_t size) {
  void *memory = malloc(size);
  CHECK(memory != NULL);
  return memory;
}

static size_t image_size(const leanresnet_model *model) {
  size_t channels, height, width;
  CHECK(leanresnet_model_input(model, &channels, &height, &width) == LEANRESNET_STATUS_OK);
  return channels * height * width;
}

/* Images [IMAGES, channels, height, width]: multiples of 2^-8 in [-2, 2), the same everywhere. */
static float *make_images(const leanresnet_model *model) {
  size_t count = IMAGES * image_size(model);
  float *images = allocate(count * sizeof *images);
  uint32_t state = 1;
  for (size_t at = 0; at < count; at++) {
    state = state * 1664525u + 1013904223u;
    images[at] = (float)(state >> 22) / 256.0f - 2.0f;
  }
  return images;
}

/* The same images, channels last. */
static float *make_channels_last(const leanresnet_model *model, const float *images) {
  size_t channels, height, width;
  CHECK(leanresnet_model_input(model, &channels, &height, &width) == LEANRESNET_STATUS_OK);
  size_t pixels = height * width, count = IMAGES * channels * pixels;
  float *moved = allocate(count * sizeof *moved);
  for (size_t at = 0; at < count; at++) {
    size_t image = at / (channels * pixels), pixel = at / channels % pixels, channel = at % channels;
    moved[at] = images[(image * channels + channel) * pixels + pixel];
  }
  return moved;
}

/* NumPy's format, version 1.0: magic, version, length of a header of text that is padded to 64 bytes, numbers. */
static void write_npy(const char *path, const leanresnet_model *model, const float *images) {
  size_t channels, height, width;
  CHECK(leanresnet_model_input(model, &channels, &height, &width) == LEANRESNET_STATUS_OK);
  char header[118];
  int length = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %zu, %zu, %zu), }", IMAGES,
                        channels, height, width);
  CHECK(length > 0 && (size_t)length < sizeof header);
  memset(header + length, ' ', sizeof header - (size_t)length);
  header[sizeof header - 1] = '\n';
  FILE *file = fopen(path, "wb");
  CHECK(file != NULL);
  CHECK(fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, file) == 10);
  CHECK(fwrite(header, 1, sizeof header, file) == sizeof header);
  size_t count = IMAGES * image_size(model);
  CHECK(fwrite(images, sizeof *images, count, file) == count);
  CHECK(fclose(file) == 0);
}

static uint8_t *read_file(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
  long end = ftell(file);
  CHECK(end > 0);
  rewind(file);
  uint8_t *bytes = allocate((size_t)end);
  CHECK(fread(bytes, 1, (size_t)end, file) == (size_t)end);
  fclose(file);
  *length = (size_t)end;
  return bytes;
}

/* The numbers of a file of [IMAGES, classes]. */
static float *read_npy(const char *path, size_t classes) {
  size_t length, count = IMAGES * classes;
  uint8_t *bytes = read_file(path, &length);
  CHECK(length > 10 && memcmp(bytes, "\x93NUMPY\x01", 7) == 0);
  size_t start = 10 + bytes[8] + 256 * (size_t)bytes[9];
  CHECK(length == start + count * sizeof(float));
  float *values = allocate(count * sizeof *values);
  memcpy(values, bytes + start, count * sizeof *values);
  free(bytes);
  return values;
}

static void check_constants(void) {
  char numbers[64];
  snprintf(numbers, sizeof numbers, "%d.%d.%d", LEANRESNET_VERSION_MAJOR, LEANRESNET_VERSION_MINOR, LEANRESNET_VERSION_PATCH);
  CHECK(strcmp(leanresnet_version(), LEANRESNET_VERSION) == 0);
  CHECK(strcmp(leanresnet_version(), numbers) == 0);
  CHECK(strcmp(leanresnet_status_text(LEANRESNET_STATUS_OK), "ok") == 0);
  CHECK(strcmp(leanresnet_status_text(12345), "unknown status") == 0);
  CHECK(sizeof error == 1024);
}

static void check_refusals(const char *path) {
  leanresnet_model *model = (leanresnet_model *)&error;
  REFUSED(leanresnet_model_load("absent/model.safetensors", &model, &error), LEANRESNET_STATUS_FAILURE, "absent");
  CHECK(model == NULL);
  REFUSED(leanresnet_model_load(NULL, &model, &error), LEANRESNET_STATUS_USAGE, "path");
  REFUSED(leanresnet_model_load(path, NULL, &error), LEANRESNET_STATUS_USAGE, "model");
  REFUSED(leanresnet_model_from_memory((const uint8_t *)"no model", 8, &model, &error), LEANRESNET_STATUS_DATA, "bytes");
  REFUSED(leanresnet_model_from_memory(NULL, 8, &model, &error), LEANRESNET_STATUS_USAGE, "NULL");
  CHECK(leanresnet_model_load("absent", &model, NULL) == LEANRESNET_STATUS_FAILURE);
  CHECK(leanresnet_model_load(NULL, NULL, NULL) == LEANRESNET_STATUS_USAGE);
  size_t number;
  CHECK(leanresnet_model_classes(NULL, &number) == LEANRESNET_STATUS_USAGE);
  leanresnet_session *session;
  REFUSED(leanresnet_session_create(NULL, NULL, &session, &error), LEANRESNET_STATUS_USAGE, "model");
  CHECK(session == NULL);
  REFUSED(leanresnet_session_run_f32(NULL, 0, NULL, 0, LEANRESNET_LAYOUT_NCHW, NULL, 0, &error), LEANRESNET_STATUS_USAGE, "session");
  leanresnet_session_free(NULL);
  leanresnet_model_free(NULL);
}

static void check_refused_runs(leanresnet_session *session, const float *images, size_t size, size_t classes) {
  float *logits = allocate((classes + 1) * sizeof *logits);
  REFUSED(leanresnet_session_run_f32(session, 1, images, size - 1, LEANRESNET_LAYOUT_NCHW, logits, classes, &error),
          LEANRESNET_STATUS_USAGE, "images");
  REFUSED(leanresnet_session_run_f32(session, 1, images, size, LEANRESNET_LAYOUT_NCHW, logits, classes + 1, &error),
          LEANRESNET_STATUS_USAGE, "logits");
  REFUSED(leanresnet_session_run_f32(session, 1, images, size, 7, logits, classes, &error), LEANRESNET_STATUS_USAGE, "layout");
  REFUSED(leanresnet_session_run_f32(session, 1, NULL, size, LEANRESNET_LAYOUT_NCHW, logits, classes, &error),
          LEANRESNET_STATUS_USAGE, "images");
  free(logits);
}

/* What the threads of a check share. */
typedef struct {
  const float *images;
  const float *expected;
  size_t size;
  size_t classes;
} problem;

typedef struct {
  const problem *problem;
  leanresnet_session *session;
} worker;

/* Runs every batch of consecutive images, and compares bits. */
static void check_runs(leanresnet_session *session, const problem *problem, leanresnet_layout layout) {
  leanresnet_error error;
  size_t classes = problem->classes, size = problem->size;
  float *logits = allocate(IMAGES * classes * sizeof *logits);
  for (size_t first = 0; first < IMAGES; first++) {
    for (size_t count = 0; first + count <= IMAGES; count++) {
      size_t bytes = count * classes * sizeof *logits;
      DONE(leanresnet_session_run_f32(session, count, problem->images + first * size, count * size, layout, logits, count * classes,
                                      &error));
      CHECK(memcmp(logits, problem->expected + first * classes, bytes) == 0);
    }
  }
  free(logits);
}

/* A thread's work: its session runs while others do, and is released while others run. */
static void *work(void *argument) {
  worker *worker = argument;
  for (int run = 0; run < RUNS; run++) check_runs(worker->session, worker->problem, LEANRESNET_LAYOUT_NCHW);
  leanresnet_session_free(worker->session);
  return NULL;
}

/* Two threads with a session each, both forks of one that is gone. */
static void check_threads(const leanresnet_model *model, const problem *problem, size_t threads) {
  leanresnet_session_options options = LEANRESNET_SESSION_OPTIONS_INIT;
  options.threads = threads;
  options.max_batch = 2;
  leanresnet_session *first;
  DONE(leanresnet_session_create(model, &options, &first, &error));
  worker workers[2];
  pthread_t handles[2];
  for (int at = 0; at < 2; at++) {
    workers[at].problem = problem;
    DONE(leanresnet_session_fork(first, &workers[at].session, &error));
  }
  leanresnet_session_free(first);
  for (int at = 0; at < 2; at++) CHECK(pthread_create(&handles[at], NULL, work, &workers[at]) == 0);
  for (int at = 0; at < 2; at++) CHECK(pthread_join(handles[at], NULL) == 0);
}

/* Bytes run as their normalised numbers do. */
static void check_bytes(const leanresnet_model *model, leanresnet_session *session, size_t size, size_t classes) {
  size_t channels, height, width, resize;
  CHECK(leanresnet_model_input(model, &channels, &height, &width) == LEANRESNET_STATUS_OK);
  float *mean = allocate(channels * sizeof *mean), *deviation = allocate(channels * sizeof *deviation);
  CHECK(leanresnet_model_preprocess(model, mean, deviation, channels, &resize) == LEANRESNET_STATUS_OK);
  CHECK(leanresnet_model_preprocess(model, mean, deviation, channels + 1, &resize) == LEANRESNET_STATUS_USAGE);
  uint8_t *bytes = allocate(size);
  float *numbers = allocate(size * sizeof *numbers), *logits = allocate(2 * classes * sizeof *logits);
  for (size_t at = 0; at < size; at++) {
    size_t channel = at % channels;
    bytes[at] = (uint8_t)(at * 37 + at / 96);
    float value = (float)bytes[at] / 255.0f;
    numbers[at] = (value - mean[channel]) / deviation[channel];
  }
  DONE(leanresnet_session_run_u8(session, 1, bytes, size, LEANRESNET_LAYOUT_NHWC, logits, classes, &error));
  DONE(leanresnet_session_run_f32(session, 1, numbers, size, LEANRESNET_LAYOUT_NHWC, logits + classes, classes, &error));
  CHECK(memcmp(logits, logits + classes, classes * sizeof *logits) == 0);
  free(logits);
  free(numbers);
  free(bytes);
  free(deviation);
  free(mean);
}

static void check_names(const leanresnet_model *model, const leanresnet_session *session, size_t classes) {
  const char *name;
  for (size_t at = 0; at < classes; at++) {
    CHECK(leanresnet_model_class_name(model, at, &name) == LEANRESNET_STATUS_OK);
    CHECK(strlen(name) > 0);
  }
  CHECK(leanresnet_model_class_name(model, classes, &name) == LEANRESNET_STATUS_USAGE);
  CHECK(leanresnet_session_instruction_set(session, &name) == LEANRESNET_STATUS_OK);
  leanresnet_precision precision;
  CHECK(leanresnet_session_precision(session, &precision) == LEANRESNET_STATUS_OK);
  CHECK(precision == LEANRESNET_PRECISION_F32);
  const char *forced = getenv("LEANRESNET_ISA");
  CHECK(forced == NULL || strcmp(forced, name) == 0);
  printf("all as expected on %s\n", name);
}

static void check(const char *path, const char *logits_path) {
  check_constants();
  check_refusals(path);
  size_t length;
  uint8_t *bytes = read_file(path, &length);
  leanresnet_model *model;
  DONE(leanresnet_model_from_memory(bytes, length, &model, &error));
  leanresnet_model *part;
  REFUSED(leanresnet_model_from_memory(bytes, length - 1, &part, &error), LEANRESNET_STATUS_DATA, "bytes");
  free(bytes);

  problem problem;
  CHECK(leanresnet_model_classes(model, &problem.classes) == LEANRESNET_STATUS_OK);
  problem.size = image_size(model);
  float *images = make_images(model), *moved = make_channels_last(model, images);
  float *expected = read_npy(logits_path, problem.classes);
  problem.images = images;
  problem.expected = expected;

  leanresnet_session_options options = LEANRESNET_SESSION_OPTIONS_INIT;
  options.threads = 1;
  options.max_batch = 3;
  leanresnet_session *session;
  DONE(leanresnet_session_create(model, &options, &session, &error));
  check_runs(session, &problem, LEANRESNET_LAYOUT_NCHW);
  problem.images = moved;
  check_runs(session, &problem, LEANRESNET_LAYOUT_NHWC);
  problem.images = images;
  check_refused_runs(session, images, problem.size, problem.classes);
  check_bytes(model, session, problem.size, problem.classes);
  check_threads(model, &problem, 1);
  check_threads(model, &problem, 2);
  check_names(model, session, problem.classes);
  leanresnet_session_free(session);
  leanresnet_model_free(model);
  free(expected);
  free(moved);
  free(images);
}

int main(int argument_count, char **arguments) {
  if (argument_count == 4 && strcmp(arguments[1], "check") == 0) {
    check(arguments[2], arguments[3]);
    return 0;
  }
  CHECK(argument_count == 4 && strcmp(arguments[1], "images") == 0);
  leanresnet_model *model;
  DONE(leanresnet_model_load(arguments[2], &model, &error));
  float *images = make_images(model);
  write_npy(arguments[3], model, images);
  free(images);
  leanresnet_model_free(model);
  return 0;
}
