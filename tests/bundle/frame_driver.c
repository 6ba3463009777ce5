/* Converts the frames that standard input describes: a line of numbers and the planes' bytes for each. Writes the raw
 * values of each, and where three corners of the input are in the frame. Planes are in memory of exactly their size, so that the sanitizer sees every byte that
 * is read beyond them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "converter.h"

static size_t number(void) {
  size_t value = 0;
  if (scanf("%zu", &value) != 1) {
    exit(3);
  }
  return value;
}

static float real(void) {
  float value = 0.0F;
  if (scanf("%f", &value) != 1) {
    exit(3);
  }
  return value;
}

static int convert(void) {
  size_t more = 0;
  if (scanf("%zu", &more) != 1) {
    return 0;
  }
  converter_input input;
  memset(&input, 0, sizeof input);
  input.width = number();
  input.height = number();
  input.channels = number();
  for (int i = 0; i < 3; ++i) {
    input.mean[i] = real();
    input.std[i] = real();
  }
  const engine_type type = (engine_type)number();
  const float scale = real();
  const int64_t zero_point = (int64_t)real();
  const size_t elements = input.width * input.height * input.channels;
  const engine_tensor tensor = {"image", "image", type, elements, scale, zero_point, NULL, 0};
  input.tensor = &tensor;
  edgepack_frame frame;
  memset(&frame, 0, sizeof frame);
  frame.pixels = (edgepack_pixels)number();
  frame.width = number();
  frame.height = number();
  frame.crop.left = number();
  frame.crop.top = number();
  frame.crop.width = number();
  frame.crop.height = number();
  frame.rotation = (int)number();
  frame.mirror = (int)number();
  frame.fit = (edgepack_fit)number();
  const size_t planes = number();
  uint8_t *memory[3] = {NULL, NULL, NULL};
  for (size_t i = 0; i < planes; ++i) {
    frame.strides[i] = number();
    frame.sizes[i] = number();
  }
  getchar();
  for (size_t i = 0; i < planes; ++i) {
    memory[i] = malloc(frame.sizes[i]);
    if (memory[i] == NULL || fread(memory[i], 1, frame.sizes[i], stdin) != frame.sizes[i]) {
      exit(3);
    }
    frame.planes[i] = memory[i];
  }
  converter *self = converter_open(&input);
  const void *values = NULL;
  edgepack_mapping mapping;
  edgepack_error error = {EDGEPACK_OK, ""};
  /* Twice: the second time with the tables and the memory of the first. */
  for (int i = 0; i < 2; ++i) {
    if (self == NULL || converter_run(self, &frame, &values, &mapping, &error) != EDGEPACK_OK) {
      fprintf(stderr, "%s\n", error.message);
      exit(4);
    }
  }
  fwrite(values, engine_type_size(type), elements, stdout);
  for (size_t i = 0; i < 3; ++i) {
    const edgepack_point place = edgepack_to_original(&mapping, i == 1 ? 1.0 : 0.0, i == 2 ? 1.0 : 0.0);
    const edgepack_point back = edgepack_to_input(&mapping, place.x, place.y);
    if (fabs(back.x - (i == 1 ? 1.0 : 0.0)) > 1e-9 || fabs(back.y - (i == 2 ? 1.0 : 0.0)) > 1e-9) {
      exit(5);
    }
    fwrite(&place, sizeof place, 1, stdout);
  }
  converter_close(self);
  for (size_t i = 0; i < planes; ++i) {
    free(memory[i]);
  }
  return 1;
}

int main(void) {
  while (convert()) {
  }
  return 0;
}
