/* The C API of TensorFlow Lite, declared here so that no header of it is needed. Made by edgepack; the same file in
 * every Linux bundle. */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"

typedef struct TfLiteModel TfLiteModel;
typedef struct TfLiteInterpreter TfLiteInterpreter;
typedef struct TfLiteInterpreterOptions TfLiteInterpreterOptions;
typedef struct TfLiteTensor TfLiteTensor;
typedef void (*tflite_reporter)(void *data, const char *format, va_list arguments);

typedef struct tflite_api {
  TfLiteModel *(*model_create)(const char *path);
  void (*model_delete)(TfLiteModel *model);
  TfLiteInterpreterOptions *(*options_create)(void);
  void (*options_delete)(TfLiteInterpreterOptions *options);
  void (*options_threads)(TfLiteInterpreterOptions *options, int32_t threads);
  void (*options_delegate)(TfLiteInterpreterOptions *options, void *delegate);
  void (*options_reporter)(TfLiteInterpreterOptions *options, tflite_reporter reporter, void *data);
  TfLiteInterpreter *(*create)(const TfLiteModel *model, const TfLiteInterpreterOptions *options);
  void (*destroy)(TfLiteInterpreter *interpreter);
  int (*allocate)(TfLiteInterpreter *interpreter);
  int (*invoke)(TfLiteInterpreter *interpreter);
  int32_t (*input_count)(const TfLiteInterpreter *interpreter);
  int32_t (*output_count)(const TfLiteInterpreter *interpreter);
  TfLiteTensor *(*input)(const TfLiteInterpreter *interpreter, int32_t index);
  const TfLiteTensor *(*output)(const TfLiteInterpreter *interpreter, int32_t index);
  const char *(*tensor_name)(const TfLiteTensor *tensor);
  void *(*tensor_data)(const TfLiteTensor *tensor);
  int (*tensor_type)(const TfLiteTensor *tensor);
  size_t (*tensor_size)(const TfLiteTensor *tensor);
  int (*copy_from)(TfLiteTensor *tensor, const void *data, size_t size);
  int (*copy_to)(const TfLiteTensor *tensor, void *data, size_t size);
} tflite_api;

#define SYMBOL(name, member) {name, offsetof(tflite_api, member)}
static const runtime_symbol kSymbols[] = {
    SYMBOL("TfLiteModelCreateFromFile", model_create),
    SYMBOL("TfLiteModelDelete", model_delete),
    SYMBOL("TfLiteInterpreterOptionsCreate", options_create),
    SYMBOL("TfLiteInterpreterOptionsDelete", options_delete),
    SYMBOL("TfLiteInterpreterOptionsSetNumThreads", options_threads),
    SYMBOL("TfLiteInterpreterOptionsAddDelegate", options_delegate),
    SYMBOL("TfLiteInterpreterOptionsSetErrorReporter", options_reporter),
    SYMBOL("TfLiteInterpreterCreate", create),
    SYMBOL("TfLiteInterpreterDelete", destroy),
    SYMBOL("TfLiteInterpreterAllocateTensors", allocate),
    SYMBOL("TfLiteInterpreterInvoke", invoke),
    SYMBOL("TfLiteInterpreterGetInputTensorCount", input_count),
    SYMBOL("TfLiteInterpreterGetOutputTensorCount", output_count),
    SYMBOL("TfLiteInterpreterGetInputTensor", input),
    SYMBOL("TfLiteInterpreterGetOutputTensor", output),
    SYMBOL("TfLiteTensorName", tensor_name),
    SYMBOL("TfLiteTensorData", tensor_data),
    SYMBOL("TfLiteTensorType", tensor_type),
    SYMBOL("TfLiteTensorByteSize", tensor_size),
    SYMBOL("TfLiteTensorCopyFromBuffer", copy_from),
    SYMBOL("TfLiteTensorCopyToBuffer", copy_to),
};

/* The model's file, or one of its segments. */
typedef struct tflite_stage {
  TfLiteModel *file;
  TfLiteInterpreter *interpreter;
} tflite_stage;

/* Where a value comes from: an output of a stage, or an input of the model. */
typedef struct tflite_source {
  size_t stage; /* kGiven for an input of the model */
  size_t index;
} tflite_source;

static const size_t kGiven = SIZE_MAX;

typedef struct tflite_session {
  tflite_api api;
  const engine_model *model;
  tflite_stage *stages;
  size_t count;
  tflite_source *sources; /* of every stage's inputs in order, then of the model's outputs */
  char said[320];         /* the runtime's first complaint */
} tflite_session;

static void keep_first(void *data, const char *format, va_list arguments) {
  tflite_session *session = data;
  if (session->said[0] == '\0') {
    vsnprintf(session->said, sizeof session->said, format, arguments);
  }
}

static edgepack_code refused(tflite_session *session, const char *what, edgepack_error *error) {
  const char *said = session->said[0] != '\0' ? session->said : "no reason given";
  return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "TensorFlow Lite %s: %s", what, said);
}

static edgepack_code check(const tflite_api *api, const engine_tensor *expected, const TfLiteTensor *tensor,
                           edgepack_error *error) {
  const size_t size = expected->elements * engine_type_size(expected->type);
  const int type = tensor != NULL ? api->tensor_type(tensor) : 0;
  if (tensor == NULL || type != (int)expected->type || api->tensor_size(tensor) != size) {
    return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "'%s': expected %zu bytes of %s, the file has %zu of %s",
                       expected->field, size, engine_type_name(expected->type),
                       tensor != NULL ? api->tensor_size(tensor) : 0, engine_type_name((engine_type)type));
  }
  return EDGEPACK_OK;
}

/* Finds the newest value of a name before a stage; segments are joined by the names of their tensors. */
static int find_source(const tflite_session *session, size_t before, const char *name, tflite_source *source) {
  for (size_t stage = before; stage-- > 0;) {
    const TfLiteInterpreter *interpreter = session->stages[stage].interpreter;
    const int32_t count = session->api.output_count(interpreter);
    for (int32_t i = 0; i < count; ++i) {
      if (strcmp(session->api.tensor_name(session->api.output(interpreter, i)), name) == 0) {
        *source = (tflite_source){stage, (size_t)i};
        return 1;
      }
    }
  }
  for (size_t i = 0; i < session->model->input_count; ++i) {
    if (strcmp(session->model->inputs[i].name, name) == 0) {
      *source = (tflite_source){kGiven, i};
      return 1;
    }
  }
  return 0;
}

/* Joins an input of a stage to where its values come from, and checks that they fit. */
static edgepack_code join_input(const tflite_session *session, size_t stage, int32_t index, tflite_source *source,
                                edgepack_error *error) {
  const tflite_api *api = &session->api;
  const TfLiteTensor *tensor = api->input(session->stages[stage].interpreter, index);
  *source = (tflite_source){kGiven, (size_t)index};
  if (session->count > 1 && !find_source(session, stage, api->tensor_name(tensor), source)) {
    return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "segment %zu reads '%.80s', which no earlier one gives", stage,
                       api->tensor_name(tensor));
  }
  if (source->stage == kGiven) {
    return check(api, &session->model->inputs[source->index], tensor, error);
  }
  const TfLiteTensor *given = api->output(session->stages[source->stage].interpreter, (int32_t)source->index);
  return api->tensor_size(given) == api->tensor_size(tensor) && api->tensor_type(given) == api->tensor_type(tensor)
             ? EDGEPACK_OK
             : engine_fail(error, EDGEPACK_RUNTIME_FAILED, "segment %zu reads '%.80s' in another form than it is given",
                           stage, api->tensor_name(tensor));
}

static edgepack_code join_output(const tflite_session *session, size_t index, tflite_source *source,
                                 edgepack_error *error) {
  const tflite_api *api = &session->api;
  const engine_tensor *expected = &session->model->outputs[index];
  *source = (tflite_source){0, index};
  if (session->count > 1 &&
      (!find_source(session, session->count, expected->name, source) || source->stage == kGiven)) {
    return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "no segment gives the output '%s'", expected->field);
  }
  return check(api, expected, api->output(session->stages[source->stage].interpreter, (int32_t)source->index), error);
}

/* Finds out where each stage's inputs and the model's outputs come from. */
static edgepack_code join(tflite_session *session, edgepack_error *error) {
  const tflite_api *api = &session->api;
  const engine_model *model = session->model;
  size_t total = model->output_count;
  for (size_t stage = 0; stage < session->count; ++stage) {
    total += (size_t)api->input_count(session->stages[stage].interpreter);
  }
  const int32_t inputs = api->input_count(session->stages[0].interpreter);
  const int32_t outputs = api->output_count(session->stages[0].interpreter);
  if (session->count == 1 && ((size_t)inputs != model->input_count || (size_t)outputs != model->output_count)) {
    return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "expected %zu inputs and %zu outputs, the file has %d and %d",
                       model->input_count, model->output_count, (int)inputs, (int)outputs);
  }
  session->sources = calloc(total + 1, sizeof *session->sources);
  if (session->sources == NULL) {
    return engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
  }
  tflite_source *source = session->sources;
  edgepack_code code = EDGEPACK_OK;
  for (size_t stage = 0; stage < session->count; ++stage) {
    const int32_t count = api->input_count(session->stages[stage].interpreter);
    for (int32_t i = 0; i < count && code == EDGEPACK_OK; ++i) {
      code = join_input(session, stage, i, source++, error);
    }
  }
  for (size_t i = 0; i < model->output_count && code == EDGEPACK_OK; ++i) {
    code = join_output(session, i, source++, error);
  }
  return code;
}

static void tflite_close(void *opened) {
  tflite_session *session = opened;
  for (size_t i = 0; session->stages != NULL && i < session->count; ++i) {
    if (session->stages[i].interpreter != NULL) {
      session->api.destroy(session->stages[i].interpreter);
    }
    if (session->stages[i].file != NULL) {
      session->api.model_delete(session->stages[i].file);
    }
  }
  free(session->stages);
  free(session->sources);
  free(session);
}

static edgepack_code start(tflite_session *session, const runtime_request *request, size_t number,
                           edgepack_error *error) {
  const tflite_api *api = &session->api;
  tflite_stage *stage = &session->stages[number];
  stage->file = api->model_create(request->paths[number]);
  if (stage->file == NULL) {
    return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "TensorFlow Lite cannot read %s", request->paths[number]);
  }
  TfLiteInterpreterOptions *options = api->options_create();
  if (options == NULL) {
    return engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
  }
  api->options_threads(options, request->threads);
  api->options_reporter(options, keep_first, session);
  if (request->delegates[number] != NULL) {
    api->options_delegate(options, request->delegates[number]);
  }
  stage->interpreter = api->create(stage->file, options);
  api->options_delete(options);
  if (stage->interpreter == NULL) {
    return refused(session, "does not take the model", error);
  }
  return api->allocate(stage->interpreter) == 0 ? EDGEPACK_OK : refused(session, "cannot prepare the model", error);
}

static edgepack_code tflite_open(void *library, const runtime_request *request, void **opened, edgepack_error *error) {
  tflite_session *session = calloc(1, sizeof *session);
  if (session == NULL) {
    return engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
  }
  session->model = request->model;
  session->count = request->count;
  session->stages = calloc(request->count, sizeof *session->stages);
  edgepack_code code = runtime_symbols(library, kSymbols, sizeof kSymbols / sizeof kSymbols[0], &session->api, error);
  if (code == EDGEPACK_OK && session->stages == NULL) {
    code = engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
  }
  for (size_t i = 0; i < request->count && code == EDGEPACK_OK; ++i) {
    code = start(session, request, i, error);
  }
  if (code == EDGEPACK_OK) {
    code = join(session, error);
  }
  if (code != EDGEPACK_OK) {
    tflite_close(session);
    return code;
  }
  *opened = session;
  return EDGEPACK_OK;
}

static edgepack_code run_stage(tflite_session *session, size_t stage, const tflite_source *sources,
                               const void *const *inputs, edgepack_error *error) {
  const tflite_api *api = &session->api;
  TfLiteInterpreter *interpreter = session->stages[stage].interpreter;
  const int32_t count = api->input_count(interpreter);
  for (int32_t i = 0; i < count; ++i) {
    TfLiteTensor *tensor = api->input(interpreter, i);
    const tflite_source source = sources[i];
    const void *data =
        source.stage == kGiven
            ? inputs[source.index]
            : api->tensor_data(api->output(session->stages[source.stage].interpreter, (int32_t)source.index));
    if (api->copy_from(tensor, data, api->tensor_size(tensor)) != 0) {
      return refused(session, "does not take the inputs", error);
    }
  }
  return api->invoke(interpreter) == 0 ? EDGEPACK_OK : refused(session, "failed to run the model", error);
}

static edgepack_code tflite_run(void *opened, const void *const *inputs, void *const *outputs, edgepack_error *error) {
  tflite_session *session = opened;
  const tflite_api *api = &session->api;
  const tflite_source *source = session->sources;
  session->said[0] = '\0';
  for (size_t stage = 0; stage < session->count; ++stage) {
    const edgepack_code code = run_stage(session, stage, source, inputs, error);
    if (code != EDGEPACK_OK) {
      return code;
    }
    source += api->input_count(session->stages[stage].interpreter);
  }
  for (size_t i = 0; i < session->model->output_count; ++i, ++source) {
    const TfLiteTensor *tensor = api->output(session->stages[source->stage].interpreter, (int32_t)source->index);
    if (outputs[i] != NULL && api->copy_to(tensor, outputs[i], api->tensor_size(tensor)) != 0) {
      return refused(session, "does not give the outputs", error);
    }
  }
  return EDGEPACK_OK;
}

static void tflite_describe(void *library, char *text, size_t size) {
  static const runtime_symbol kVersion = {"TfLiteVersion", 0};
  const char *(*version)(void) = NULL;
  if (runtime_symbols(library, &kVersion, 1, &version, NULL) == EDGEPACK_OK) {
    snprintf(text, size, "TensorFlow Lite %s", version());
  } else {
    snprintf(text, size, "TensorFlow Lite");
  }
}

const runtime_kind runtime_tflite = {
    "TensorFlow Lite", "TfLiteModelCreateFromFile", 1, tflite_describe, tflite_open, tflite_run, tflite_close,
};
