/*
 * What a model sees in an image: classify MODEL.safetensors [IMAGE.raw]
 *
 * IMAGE.raw holds height x width x channels bytes, row by row, as the model's input size says; for a model of 32 x 32 pixels,
 * ImageMagick writes one by `convert photo.jpg -resize 32x32! -depth 8 rgb:IMAGE.raw`. Without it, the image is a gradient.
 */
#include "leanresnet.h"

#include <stdio.h>
#include <stdlib.h>

/* Fills an image from a file of exactly its size; returns whether there was one. */
static int read_image(const char *path, uint8_t *pixels, size_t size) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) {
    perror(path);
    return 0;
  }
  size_t count = fread(pixels, 1, size, file);
  int is_longer = count == size && fgetc(file) != EOF;
  fclose(file);
  if (count != size || is_longer) {
    fprintf(stderr, "%s: expected %zu bytes, got %s\n", path, size, is_longer ? "more" : "fewer");
    return 0;
  }
  return 1;
}

/* From black at the top left to white at the bottom right. */
static void make_image(uint8_t *pixels, size_t channels, size_t height, size_t width) {
  for (size_t at = 0; at < height * width * channels; at++) {
    size_t x = at / channels % width, y = at / channels / width;
    pixels[at] = (uint8_t)(255 * (x + y + 1) / (height + width));
  }
}

/* Prints the class with the largest logit. */
static leanresnet_status print_best(const leanresnet_model *model, const float *logits, size_t classes) {
  size_t best = 0;
  for (size_t class_index = 1; class_index < classes; class_index++) {
    if (logits[class_index] > logits[best]) best = class_index;
  }
  const char *name;
  leanresnet_status status = leanresnet_model_class_name(model, best, &name);
  if (status == LEANRESNET_STATUS_OK) printf("class %zu %s (logit %.6f)\n", best, name, logits[best]);
  return status;
}

int main(int argument_count, char **arguments) {
  if (argument_count != 2 && argument_count != 3) {
    fprintf(stderr, "usage: %s MODEL.safetensors [IMAGE.raw]\n", arguments[0]);
    return LEANRESNET_STATUS_USAGE;
  }
  leanresnet_error error = {""};
  leanresnet_model *model = NULL;
  leanresnet_session *session = NULL;
  uint8_t *pixels = NULL;
  float *logits = NULL;

  /* One image at a time needs no other threads. */
  leanresnet_session_options options = LEANRESNET_SESSION_OPTIONS_INIT;
  options.max_batch = 1;
  options.threads = 1;

  leanresnet_status status = leanresnet_model_load(arguments[1], &model, &error);
  if (status == LEANRESNET_STATUS_OK) status = leanresnet_session_create(model, &options, &session, &error);
  if (status == LEANRESNET_STATUS_OK) {
    size_t channels, height, width, classes;
    leanresnet_model_input(model, &channels, &height, &width);
    leanresnet_model_classes(model, &classes);
    size_t size = channels * height * width;
    pixels = malloc(size);
    logits = malloc(classes * sizeof *logits);
    if (pixels == NULL || logits == NULL) {
      perror("memory");
      status = LEANRESNET_STATUS_FAILURE;
    } else if (argument_count == 3 && !read_image(arguments[2], pixels, size)) {
      status = LEANRESNET_STATUS_FAILURE;
    } else {
      if (argument_count == 2) make_image(pixels, channels, height, width);
      status = leanresnet_session_run_u8(session, 1, pixels, size, LEANRESNET_LAYOUT_NHWC, logits, classes, &error);
      if (status == LEANRESNET_STATUS_OK) status = print_best(model, logits, classes);
    }
  }
  if (error.message[0] != '\0') fprintf(stderr, "%s: %s\n", leanresnet_status_text(status), error.message);

  free(logits);
  free(pixels);
  leanresnet_session_free(session);
  leanresnet_model_free(model);
  return status;
}
