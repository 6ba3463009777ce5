/* Replays the golden vectors that came with the model. Made by edgepack; the same file in every Linux bundle. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine_state.h"

static size_t raw_size(const engine_tensor *tensor) { return tensor->elements * engine_type_size(tensor->type); }

static edgepack_code read_golden(const engine *self, size_t number, const char *kind, size_t position, size_t size,
                                 void **data, edgepack_error *error) {
  char name[96];
  char path[kPathSize];
  snprintf(name, sizeof name, "golden/case_%zu/%s_%zu.bin", number, kind, position);
  const edgepack_code code = engine_path(self, name, path, error);
  if (code != EDGEPACK_OK) {
    return code;
  }
  FILE *stream = fopen(path, "rb");
  if (stream == NULL) {
    return engine_fail(error, EDGEPACK_NO_FILE, "cannot read %s: %s", path, strerror(errno));
  }
  *data = malloc(size + 1);
  /* One byte more than expected: a longer file is as wrong as a shorter one. */
  const size_t got = *data != NULL ? fread(*data, 1, size + 1, stream) : 0;
  fclose(stream);
  if (*data == NULL) {
    return engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
  }
  return got == size ? EDGEPACK_OK
                     : engine_fail(error, EDGEPACK_NO_FILE, "%s: expected %zu bytes, got %s", path, size,
                                   got < size ? "fewer" : "more");
}

/* What this loader makes of a golden raw output has to be the golden finished one. */
static edgepack_code check_tail(const engine *self, size_t number, size_t position, const void *raw,
                                edgepack_difference *difference, edgepack_error *error) {
  const engine_tensor *tensor = &self->model->outputs[position];
  const size_t size = engine_finished_size(tensor);
  void *expected = NULL;
  void *finished = malloc(size + 1);
  edgepack_code code = finished == NULL ? engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory")
                                        : read_golden(self, number, "finished", position, size, &expected, error);
  if (code == EDGEPACK_OK) {
    engine_finish(tensor, raw, self->real_outputs[position], finished);
    if (!engine_same(tensor, expected, finished)) {
      difference->largest = HUGE_VAL;
      difference->ok = 0;
    }
  }
  free(expected);
  free(finished);
  return code;
}

static edgepack_code run_case(engine *self, size_t number, void **inputs, void **expected, void **actual,
                              edgepack_difference *differences, edgepack_error *error) {
  const engine_model *model = self->model;
  edgepack_code code = engine_reset(self, error);
  for (size_t i = 0; code == EDGEPACK_OK && i < model->input_count; ++i) {
    code = read_golden(self, number, "input", i, raw_size(&model->inputs[i]), &inputs[i], error);
  }
  for (size_t i = 0; code == EDGEPACK_OK && i < model->output_count; ++i) {
    const engine_tensor *tensor = &model->outputs[i];
    code = read_golden(self, number, "output", i, raw_size(tensor), &expected[i], error);
    actual[i] = calloc(tensor->elements + 1, engine_type_size(tensor->type));
    if (code == EDGEPACK_OK && actual[i] == NULL) {
      code = engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
    }
  }
  if (code == EDGEPACK_OK) {
    code = engine_run_raw(self, (const void *const *)inputs, actual, error);
  }
  const int on_cpu = code == EDGEPACK_OK && strcmp(self->status.accelerator, "cpu") == 0;
  for (size_t i = 0; code == EDGEPACK_OK && i < model->output_count; ++i) {
    differences[i].golden_case = number;
    differences[i].output = i;
    engine_compare(&model->outputs[i], expected[i], actual[i], on_cpu ? &model->on_cpu : &model->on_accelerator,
                   &differences[i]);
    if (model->outputs[i].tail_count > 0) {
      code = check_tail(self, number, i, expected[i], &differences[i], error);
    }
  }
  return code;
}

edgepack_code engine_self_test(engine *self, edgepack_difference *differences, edgepack_error *error) {
  if (self == NULL || differences == NULL) {
    return engine_fail(error, EDGEPACK_BAD_ARGUMENT, "the model or the differences are null");
  }
  const engine_model *model = self->model;
  edgepack_code code = EDGEPACK_OK;
  for (size_t number = 0; code == EDGEPACK_OK && number < model->cases; ++number) {
    void **inputs = calloc(model->input_count + 1, sizeof *inputs);
    void **expected = calloc(model->output_count + 1, sizeof *expected);
    void **actual = calloc(model->output_count + 1, sizeof *actual);
    code = inputs == NULL || expected == NULL || actual == NULL
               ? engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory")
               : run_case(self, number, inputs, expected, actual, differences + number * model->output_count, error);
    engine_free_all(inputs, model->input_count);
    engine_free_all(expected, model->output_count);
    engine_free_all(actual, model->output_count);
  }
  return code;
}
