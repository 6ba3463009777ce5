/* Tiny Model 2.0: what the engine needs to know of the model. Made by edgepack. */
#include "tiny_model_2_0/tiny_model_2_0.h"

#include <stddef.h>

#include "engine.h"

#ifndef EDGEPACK_DATA_DIR
#define EDGEPACK_DATA_DIR "."
#endif

/* field, name in the file, type, elements, scale, zero point, what is done to it, how many steps */
static const engine_tensor kInputs[] = {
    {"my_image", "serving_default_image:0", (engine_type)9, 12, 0.0078125f, -1, NULL, 0},
    {"class_", "serving_default_class:0", (engine_type)1, 4, 0.0f, 0, NULL, 0},
};

static const engine_tensor kOutputs[] = {
    {"scores", "StatefulPartitionedCall:0", (engine_type)3, 3, 0.00390625f, 0, NULL, 0},
    {"output_2nd_output", "StatefulPartitionedCall:1", (engine_type)1, 2, 0.0f, 0, NULL, 0},
    {"scores2", "StatefulPartitionedCall:2", (engine_type)4, 1, 0.0f, 0, NULL, 0},
};

static const engine_model kModel = {
    .data_dir = EDGEPACK_DATA_DIR,
    .host_file = "tiny.tflite",
    .inputs = kInputs,
    .outputs = kOutputs,
    .input_count = 2,
    .output_count = 3,
    .cases = 1,
    .on_cpu = {1, 0.0001},
    .on_accelerator = {5, 0.02},
};

static const char *const kLabels0[] = {
    "cat",
    "dog",
    "a \"b\" $c",
};

/* The API's handle is the engine itself. */
static engine *open_handle(tiny_model_2_0_model *model) { return (engine *)(void *)model; }

tiny_model_2_0_model *tiny_model_2_0_create(const edgepack_options *options, edgepack_error *error) {
  return (tiny_model_2_0_model *)(void *)engine_open(&kModel, options, error);
}

void tiny_model_2_0_destroy(tiny_model_2_0_model *model) { engine_close(open_handle(model)); }

const edgepack_status *tiny_model_2_0_status(const tiny_model_2_0_model *model) {
  return engine_status((const engine *)(const void *)model);
}

edgepack_code tiny_model_2_0_run(tiny_model_2_0_model *model, const tiny_model_2_0_inputs *inputs,
                                 const tiny_model_2_0_outputs *outputs, edgepack_error *error) {
  if (inputs == NULL || outputs == NULL) {
    return engine_fail(error, EDGEPACK_BAD_ARGUMENT, "the inputs or outputs are null");
  }
  const void *given[] = {
      inputs->my_image,
      inputs->class_,
  };
  void *wanted[] = {
      outputs->scores,
      outputs->output_2nd_output,
      outputs->scores2,
  };
  return engine_run_real(open_handle(model), given, wanted, error);
}

edgepack_code tiny_model_2_0_run_raw(tiny_model_2_0_model *model, const void *const *inputs, void *const *outputs,
                                     edgepack_error *error) {
  return engine_run_raw(open_handle(model), inputs, outputs, error);
}

edgepack_code tiny_model_2_0_reset(tiny_model_2_0_model *model, edgepack_error *error) {
  return engine_reset(open_handle(model), error);
}

edgepack_code tiny_model_2_0_self_test(tiny_model_2_0_model *model, edgepack_difference *differences,
                                       edgepack_error *error) {
  return engine_self_test(open_handle(model), differences, error);
}

size_t tiny_model_2_0_top_k_scores(const float *scores, size_t k, edgepack_label *best) {
  const size_t count = sizeof kLabels0 / sizeof kLabels0[0];
  return engine_rank(kLabels0, count < 3 ? count : 3, scores, k, best);
}
