/* What every model's loader does: finds a runtime, runs a file, quantizes, replays golden vectors. Made by edgepack;
 * the same file in every Linux bundle. */
#ifndef EDGEPACK_ENGINE_H_
#define EDGEPACK_ENGINE_H_

#include <stdint.h>

#include "edgepack/model.h"

/* Two models in one program must not share symbols: each one's build sets its own prefix. */
#define ENGINE_JOIN_(prefix, name) prefix##_##name
#define ENGINE_JOIN(prefix, name) ENGINE_JOIN_(prefix, name)
#define engine_close ENGINE_JOIN(EDGEPACK_PREFIX, engine_close)
#define engine_fail ENGINE_JOIN(EDGEPACK_PREFIX, engine_fail)
#define engine_open ENGINE_JOIN(EDGEPACK_PREFIX, engine_open)
#define engine_rank ENGINE_JOIN(EDGEPACK_PREFIX, engine_rank)
#define engine_reset ENGINE_JOIN(EDGEPACK_PREFIX, engine_reset)
#define engine_run_raw ENGINE_JOIN(EDGEPACK_PREFIX, engine_run_raw)
#define engine_run_real ENGINE_JOIN(EDGEPACK_PREFIX, engine_run_real)
#define engine_self_test ENGINE_JOIN(EDGEPACK_PREFIX, engine_self_test)
#define engine_status ENGINE_JOIN(EDGEPACK_PREFIX, engine_status)
#define engine_type_name ENGINE_JOIN(EDGEPACK_PREFIX, engine_type_name)
#define engine_type_size ENGINE_JOIN(EDGEPACK_PREFIX, engine_type_size)
#define engine_dequantize ENGINE_JOIN(EDGEPACK_PREFIX, engine_dequantize)
#define engine_quantize ENGINE_JOIN(EDGEPACK_PREFIX, engine_quantize)
#define engine_finish ENGINE_JOIN(EDGEPACK_PREFIX, engine_finish)
#define engine_finished_size ENGINE_JOIN(EDGEPACK_PREFIX, engine_finished_size)
#define engine_same ENGINE_JOIN(EDGEPACK_PREFIX, engine_same)
#define engine_compare ENGINE_JOIN(EDGEPACK_PREFIX, engine_compare)
#define runtime_litert ENGINE_JOIN(EDGEPACK_PREFIX, runtime_litert)
#define runtime_load ENGINE_JOIN(EDGEPACK_PREFIX, runtime_load)
#define runtime_symbols ENGINE_JOIN(EDGEPACK_PREFIX, runtime_symbols)
#define runtime_tflite ENGINE_JOIN(EDGEPACK_PREFIX, runtime_tflite)
#define edgetpu_attach ENGINE_JOIN(EDGEPACK_PREFIX, edgetpu_attach)

/* Lets compilers check a format against its arguments. */
#if defined(__GNUC__)
#define ENGINE_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define ENGINE_PRINTF(text, first)
#endif

/* Types of raw values, numbered as both runtimes' C APIs do. */
typedef enum engine_type {
  ENGINE_FLOAT32 = 1,
  ENGINE_INT32 = 2,
  ENGINE_UINT8 = 3,
  ENGINE_INT64 = 4,
  ENGINE_BOOL = 6,
  ENGINE_INT16 = 7,
  ENGINE_COMPLEX64 = 8,
  ENGINE_INT8 = 9,
  ENGINE_FLOAT16 = 10,
  ENGINE_FLOAT64 = 11,
  ENGINE_COMPLEX128 = 12,
  ENGINE_UINT64 = 13,
  ENGINE_UINT32 = 16,
  ENGINE_UINT16 = 17
} engine_type;

typedef enum engine_op { ENGINE_SOFTMAX, ENGINE_ARG_MAX } engine_op;

/* What is done to an output's real values, because the accelerator does not take it. */
typedef struct engine_step {
  engine_op op;
  engine_type type; /* of the result */
  size_t outer;     /* product of the sizes before the axis it works along */
  size_t size;      /* size of the axis */
  size_t inner;     /* product of the sizes after it */
  float beta;       /* factor in front of the logits */
} engine_step;

typedef struct engine_tensor {
  const char *field; /* name in the API, for messages */
  const char *name;  /* name in the file: segments of a model are joined by it */
  engine_type type;
  size_t elements;
  float scale; /* real = scale * (raw - zero_point); 0 when raw values stand for themselves */
  int64_t zero_point;
  const engine_step *tail; /* in order; ENGINE_ARG_MAX is the last one if it is there */
  size_t tail_count;
} engine_tensor;

typedef struct engine_tolerance {
  double steps;    /* of integers with a scale */
  double relative; /* of floats, as a part of the largest magnitude expected */
} engine_tolerance;

/* An accelerator attached to a session: a TfLiteDelegate and how to free it. */
typedef struct engine_delegate {
  void *delegate;
  void (*destroy)(void *delegate);
} engine_delegate;

/* Returns EDGEPACK_OK with a delegate, or the reason in `error`. */
typedef edgepack_code (*engine_attach)(const char *device, engine_delegate *delegate, edgepack_error *error);

typedef struct engine_model {
  const char *data_dir;              /* compiled-in folder */
  const char *host_file;             /* runs on the CPU */
  const char *const *compiled_files; /* run on the accelerator, one after the other */
  size_t compiled_count;             /* 0 when nothing was compiled */
  const char *compiled_names;        /* of all of them, for people */
  const char *accelerator;           /* its name */
  engine_attach attach;              /* null: this model is not for an accelerator at all */
  const engine_tensor *inputs;
  const engine_tensor *outputs;
  size_t input_count;
  size_t output_count;
  size_t cases; /* golden ones */
  engine_tolerance on_cpu;
  engine_tolerance on_accelerator;
} engine_model;

typedef struct engine engine;

/* Writes a message and returns `code`; `error` may be null. */
edgepack_code engine_fail(edgepack_error *error, edgepack_code code, const char *format, ...) ENGINE_PRINTF(3, 4);

engine *engine_open(const engine_model *model, const edgepack_options *options, edgepack_error *error);
void engine_close(engine *self);
const edgepack_status *engine_status(const engine *self);
edgepack_code engine_reset(engine *self, edgepack_error *error);
edgepack_code engine_run_raw(engine *self, const void *const *inputs, void *const *outputs, edgepack_error *error);
edgepack_code engine_run_real(engine *self, const void *const *inputs, void *const *outputs, edgepack_error *error);
edgepack_code engine_self_test(engine *self, edgepack_difference *differences, edgepack_error *error);

size_t engine_type_size(engine_type type);
const char *engine_type_name(engine_type type);
edgepack_code engine_quantize(const engine_tensor *tensor, const float *real, void *raw, edgepack_error *error);
void engine_dequantize(const engine_tensor *tensor, const void *raw, float *real);
/* Makes what the caller gets of an output with a tail. `real` has room for its elements. */
void engine_finish(const engine_tensor *tensor, const void *raw, float *real, void *finished);
/* Bytes of what `engine_finish` makes. */
size_t engine_finished_size(const engine_tensor *tensor);
/* Whether finished values are the expected ones: classes exactly, probabilities to 1e-5. */
int engine_same(const engine_tensor *tensor, const void *expected, const void *finished);
/* Fills `largest`, `allowed` and `ok` from two raw tensors. */
void engine_compare(const engine_tensor *tensor, const void *expected, const void *actual,
                    const engine_tolerance *tolerance, edgepack_difference *difference);
size_t engine_rank(const char *const *labels, size_t count, const float *scores, size_t k, edgepack_label *best);

#endif /* EDGEPACK_ENGINE_H_ */
