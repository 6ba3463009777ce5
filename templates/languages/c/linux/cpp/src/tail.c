/* Last steps of a model that are done here. Made by edgepack; the same file in every Linux bundle. */
#include <math.h>
#include <string.h>

#include "engine.h"

/* Along the last axis, in place. */
static void softmax(const engine_step *step, float *values) {
  for (size_t row = 0; row < step->outer; ++row, values += step->size) {
    double highest = -HUGE_VAL;
    double sum = 0.0;
    for (size_t i = 0; i < step->size; ++i) {
      highest = fmax(highest, (double)values[i] * (double)step->beta);
    }
    for (size_t i = 0; i < step->size; ++i) {
      sum += exp((double)values[i] * (double)step->beta - highest);
    }
    for (size_t i = 0; i < step->size; ++i) {
      values[i] = (float)(exp((double)values[i] * (double)step->beta - highest) / sum);
    }
  }
}

/* The first of the highest values. */
static void arg_max(const engine_step *step, const float *values, void *classes) {
  for (size_t place = 0; place < step->outer * step->inner; ++place) {
    const float *row = values + place / step->inner * step->size * step->inner + place % step->inner;
    size_t best = 0;
    for (size_t i = 1; i < step->size; ++i) {
      best = row[i * step->inner] > row[best * step->inner] ? i : best;
    }
    if (step->type == ENGINE_INT32) {
      ((int32_t *)classes)[place] = (int32_t)best;
    } else {
      ((int64_t *)classes)[place] = (int64_t)best;
    }
  }
}

void engine_finish(const engine_tensor *tensor, const void *raw, float *real, void *finished) {
  if (tensor->scale != 0.0F) {
    engine_dequantize(tensor, raw, real);
  } else {
    memcpy(real, raw, tensor->elements * sizeof *real);
  }
  for (size_t i = 0; i < tensor->tail_count; ++i) {
    if (tensor->tail[i].op == ENGINE_ARG_MAX) {
      arg_max(&tensor->tail[i], real, finished);
      return;
    }
    softmax(&tensor->tail[i], real);
  }
  memcpy(finished, real, tensor->elements * sizeof *real);
}

static const engine_step *last_step(const engine_tensor *tensor) { return &tensor->tail[tensor->tail_count - 1]; }

static size_t finished_count(const engine_tensor *tensor) {
  const engine_step *last = last_step(tensor);
  return last->op == ENGINE_ARG_MAX ? last->outer * last->inner : tensor->elements;
}

size_t engine_finished_size(const engine_tensor *tensor) {
  return finished_count(tensor) * engine_type_size(last_step(tensor)->type);
}

int engine_same(const engine_tensor *tensor, const void *expected, const void *finished) {
  const engine_tolerance tolerance = {0.0, 1e-5};
  const engine_step *last = last_step(tensor);
  const engine_tensor values = {tensor->field, tensor->name, last->type, finished_count(tensor), 0.0F, 0, NULL, 0};
  edgepack_difference difference;
  engine_compare(&values, expected, finished, &tolerance, &difference);
  return difference.ok;
}
