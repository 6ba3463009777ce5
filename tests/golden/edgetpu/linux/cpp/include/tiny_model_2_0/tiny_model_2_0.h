/* Tiny Model 2.0: C API of one model.
 *
 * Made by edgepack. Values go in and come out as real numbers; quantization happens inside, with the model's own scales
 * and zero points. Functions that can fail return a code other than EDGEPACK_OK, or null, and fill `error`.
 * Different models may be used by different threads at once, one model by one thread at a time.
 */
#ifndef TINY_MODEL_2_0_TINY_MODEL_2_0_H_
#define TINY_MODEL_2_0_TINY_MODEL_2_0_H_

#include <stddef.h>
#include <stdint.h>

#include "edgepack/model.h"

#if EDGEPACK_MODEL_ABI != 1
#error "this model and edgepack/model.h come from different versions of edgepack"
#endif

/* How many values each input takes and each output gives. */
#define TINY_MODEL_2_0_INPUT_MY_IMAGE_SIZE 12 /* [1, 2, 2, 3] */
#define TINY_MODEL_2_0_INPUT_CLASS_SIZE 4 /* [1, 4] */
#define TINY_MODEL_2_0_OUTPUT_SCORES_SIZE 3 /* [1, 3] */
#define TINY_MODEL_2_0_OUTPUT_OUTPUT_2ND_OUTPUT_SIZE 2 /* [1, 2] */
#define TINY_MODEL_2_0_OUTPUT_SCORES2_SIZE 1 /* [] */

/* How many differences the self-test gives. */
#define TINY_MODEL_2_0_DIFFERENCES 3

#ifdef __cplusplus
extern "C" {
#endif

/* A loaded model. */
typedef struct tiny_model_2_0_model tiny_model_2_0_model;

/* Where the inputs' values are. */
typedef struct tiny_model_2_0_inputs {
  const float *my_image; /* My image: real values [1, 2, 2, 3] */
  const float *class_; /* class: FLOAT32 [1, 4] */
} tiny_model_2_0_inputs;

/* Where to put the outputs' values; null for an output that is not wanted. */
typedef struct tiny_model_2_0_outputs {
  float *scores; /* scores: real values [1, 3] */
  float *output_2nd_output; /* 2nd-output: FLOAT32 [1, 2] */
  int64_t *scores2; /* scores: INT64 [] */
} tiny_model_2_0_outputs;

/* Loads the model. `options` may be null. Returns null on failure. */
tiny_model_2_0_model *tiny_model_2_0_create(const edgepack_options *options, edgepack_error *error);

/* Frees the model; null is allowed. */
void tiny_model_2_0_destroy(tiny_model_2_0_model *model);

/* Says what runs the model, and why not something better. */
const edgepack_status *tiny_model_2_0_status(const tiny_model_2_0_model *model);

/* Runs the model on real values. */
edgepack_code tiny_model_2_0_run(tiny_model_2_0_model *model, const tiny_model_2_0_inputs *inputs,
                                 const tiny_model_2_0_outputs *outputs, edgepack_error *error);

/* Runs the model on raw values: one pointer per input and output in the model's order and types. */
edgepack_code tiny_model_2_0_run_raw(tiny_model_2_0_model *model, const void *const *inputs, void *const *outputs,
                                     edgepack_error *error);

/* Forgets the state of a model that has one (LSTM), so that the next run is like the first. */
edgepack_code tiny_model_2_0_reset(tiny_model_2_0_model *model, edgepack_error *error);

/* Runs the golden vectors from the data folder and writes TINY_MODEL_2_0_DIFFERENCES entries. */
edgepack_code tiny_model_2_0_self_test(tiny_model_2_0_model *model, edgepack_difference *differences,
                                       edgepack_error *error);

/* Writes the `k` labels with the highest values of an output, best first; returns how many there were. */
size_t tiny_model_2_0_top_k_scores(const float *scores, size_t k, edgepack_label *best);

#ifdef __cplusplus
}
#endif

#endif /* TINY_MODEL_2_0_TINY_MODEL_2_0_H_ */
