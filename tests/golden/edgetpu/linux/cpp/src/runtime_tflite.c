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
    SYMBOL("TfLiteTensorType", tensor_type),
    SYMBOL("TfLiteTensorByteSize", tensor_size),
    SYMBOL("TfLiteTensorCopyFromBuffer", copy_from),
    SYMBOL("TfLiteTensorCopyToBuffer", copy_to),
};

typedef struct tflite_session {
  tflite_api api;
  const engine_model *model;
  TfLiteModel *file;
  TfLiteInterpreter *interpreter;
  char said[320]; /* the runtime's first complaint */
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

static edgepack_code check_all(const tflite_session *session, edgepack_error *error) {
  const tflite_api *api = &session->api;
  const engine_model *model = session->model;
  const int32_t inputs = api->input_count(session->interpreter);
  const int32_t outputs = api->output_count(session->interpreter);
  if ((size_t)inputs != model->input_count || (size_t)outputs != model->output_count) {
    return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "expected %zu inputs and %zu outputs, the file has %d and %d",
                       model->input_count, model->output_count, (int)inputs, (int)outputs);
  }
  edgepack_code code = EDGEPACK_OK;
  for (int32_t i = 0; i < inputs && code == EDGEPACK_OK; ++i) {
    code = check(api, &model->inputs[i], api->input(session->interpreter, i), error);
  }
  for (int32_t i = 0; i < outputs && code == EDGEPACK_OK; ++i) {
    code = check(api, &model->outputs[i], api->output(session->interpreter, i), error);
  }
  return code;
}

static void tflite_close(void *opened) {
  tflite_session *session = opened;
  if (session->interpreter != NULL) {
    session->api.destroy(session->interpreter);
  }
  if (session->file != NULL) {
    session->api.model_delete(session->file);
  }
  free(session);
}

static edgepack_code start(tflite_session *session, const runtime_request *request, edgepack_error *error) {
  const tflite_api *api = &session->api;
  session->file = api->model_create(request->path);
  if (session->file == NULL) {
    return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "TensorFlow Lite cannot read %s", request->path);
  }
  TfLiteInterpreterOptions *options = api->options_create();
  if (options == NULL) {
    return engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
  }
  api->options_threads(options, request->threads);
  api->options_reporter(options, keep_first, session);
  if (request->delegate != NULL) {
    api->options_delegate(options, request->delegate);
  }
  session->interpreter = api->create(session->file, options);
  api->options_delete(options);
  if (session->interpreter == NULL) {
    return refused(session, "does not take the model", error);
  }
  if (api->allocate(session->interpreter) != 0) {
    return refused(session, "cannot prepare the model", error);
  }
  return check_all(session, error);
}

static edgepack_code tflite_open(void *library, const runtime_request *request, void **opened, edgepack_error *error) {
  tflite_session *session = calloc(1, sizeof *session);
  if (session == NULL) {
    return engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
  }
  session->model = request->model;
  edgepack_code code = runtime_symbols(library, kSymbols, sizeof kSymbols / sizeof kSymbols[0], &session->api, error);
  if (code == EDGEPACK_OK) {
    code = start(session, request, error);
  }
  if (code != EDGEPACK_OK) {
    tflite_close(session);
    return code;
  }
  *opened = session;
  return EDGEPACK_OK;
}

static edgepack_code tflite_run(void *opened, const void *const *inputs, void *const *outputs, edgepack_error *error) {
  tflite_session *session = opened;
  const tflite_api *api = &session->api;
  session->said[0] = '\0';
  for (size_t i = 0; i < session->model->input_count; ++i) {
    TfLiteTensor *tensor = api->input(session->interpreter, (int32_t)i);
    if (api->copy_from(tensor, inputs[i], api->tensor_size(tensor)) != 0) {
      return refused(session, "does not take the inputs", error);
    }
  }
  if (api->invoke(session->interpreter) != 0) {
    return refused(session, "failed to run the model", error);
  }
  for (size_t i = 0; i < session->model->output_count; ++i) {
    const TfLiteTensor *tensor = api->output(session->interpreter, (int32_t)i);
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
