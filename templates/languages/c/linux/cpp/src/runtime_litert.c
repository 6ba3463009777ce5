/* LiteRT's C API as of 2.1 to 2.3, declared here because its packages carry no headers. Made by edgepack; the same file
 * in every Linux bundle. */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"

/* Only ever handed back to LiteRT; 72 bytes in the versions above. */
typedef union litert_tensor_type {
  int32_t element_type;
  void *alignment;
  unsigned char bytes[256];
} litert_tensor_type;

enum { kCpu = 1, kLockRead = 0, kLockWrite = 1, kUnsupported = 5 };

/* Every function returns 0 for success where it returns a number; handles are opaque pointers. */
typedef struct litert_api {
  int (*create_environment)(int count, const void *options, void **environment);
  void (*destroy_environment)(void *environment);
  int (*create_model)(void *environment, const char *path, void **model);
  void (*destroy_model)(void *model);
  int (*create_options)(void **options);
  void (*destroy_options)(void *options);
  int (*set_accelerators)(void *options, int set);
  int (*create_opaque)(const char *kind, void *payload, void (*destroy)(void *), void **opaque);
  int (*add_opaque)(void *options, void *opaque);
  int (*compile)(void *environment, void *model, void *options, void **compiled);
  void (*destroy_compiled)(void *compiled);
  int (*subgraph)(void *model, size_t index, void **subgraph);
  int (*subgraph_inputs)(void *subgraph, size_t *count);
  int (*subgraph_outputs)(void *subgraph, size_t *count);
  int (*subgraph_input)(void *subgraph, size_t index, void **tensor);
  int (*subgraph_output)(void *subgraph, size_t index, void **tensor);
  int (*signature_count)(void *model, size_t *count);
  int (*signature)(void *model, size_t index, void **signature);
  int (*signature_subgraph)(void *signature, void **subgraph);
  int (*signature_inputs)(void *signature, size_t *count);
  int (*signature_outputs)(void *signature, size_t *count);
  int (*signature_input)(void *signature, size_t index, void **tensor);
  int (*signature_output)(void *signature, size_t index, void **tensor);
  int (*tensor_index)(void *tensor, uint32_t *index);
  int (*tensor_type)(void *tensor, litert_tensor_type *type);
  int (*input_requirements)(void *compiled, size_t signature, size_t index, void **requirements);
  int (*output_requirements)(void *compiled, size_t signature, size_t index, void **requirements);
  int (*create_buffer)(void *environment, const litert_tensor_type *type, void *requirements, void **buffer);
  void (*destroy_buffer)(void *buffer);
  int (*buffer_size)(void *buffer, size_t *size);
  int (*lock)(void *buffer, void **memory, int mode);
  int (*unlock)(void *buffer);
  int (*run)(void *compiled, size_t signature, size_t inputs, void **input, size_t outputs, void **output);
  /* Not called: it came with the versions whose functions are declared here. */
  int (*version_mark)(void *tensor, void *quantization);
} litert_api;

#define SYMBOL(name, member) {name, offsetof(litert_api, member)}
static const runtime_symbol kSymbols[] = {
    SYMBOL("LiteRtGetBlockWiseQuantization", version_mark),
    SYMBOL("LiteRtCreateEnvironment", create_environment),
    SYMBOL("LiteRtDestroyEnvironment", destroy_environment),
    SYMBOL("LiteRtCreateModelFromFile", create_model),
    SYMBOL("LiteRtDestroyModel", destroy_model),
    SYMBOL("LiteRtCreateOptions", create_options),
    SYMBOL("LiteRtDestroyOptions", destroy_options),
    SYMBOL("LiteRtSetOptionsHardwareAccelerators", set_accelerators),
    SYMBOL("LiteRtCreateOpaqueOptions", create_opaque),
    SYMBOL("LiteRtAddOpaqueOptions", add_opaque),
    SYMBOL("LiteRtCreateCompiledModel", compile),
    SYMBOL("LiteRtDestroyCompiledModel", destroy_compiled),
    SYMBOL("LiteRtGetModelSubgraph", subgraph),
    SYMBOL("LiteRtGetNumSubgraphInputs", subgraph_inputs),
    SYMBOL("LiteRtGetNumSubgraphOutputs", subgraph_outputs),
    SYMBOL("LiteRtGetSubgraphInput", subgraph_input),
    SYMBOL("LiteRtGetSubgraphOutput", subgraph_output),
    SYMBOL("LiteRtGetNumModelSignatures", signature_count),
    SYMBOL("LiteRtGetModelSignature", signature),
    SYMBOL("LiteRtGetSignatureSubgraph", signature_subgraph),
    SYMBOL("LiteRtGetNumSignatureInputs", signature_inputs),
    SYMBOL("LiteRtGetNumSignatureOutputs", signature_outputs),
    SYMBOL("LiteRtGetSignatureInputTensorByIndex", signature_input),
    SYMBOL("LiteRtGetSignatureOutputTensorByIndex", signature_output),
    SYMBOL("LiteRtGetTensorIndex", tensor_index),
    SYMBOL("LiteRtGetRankedTensorType", tensor_type),
    SYMBOL("LiteRtGetCompiledModelInputBufferRequirements", input_requirements),
    SYMBOL("LiteRtGetCompiledModelOutputBufferRequirements", output_requirements),
    SYMBOL("LiteRtCreateManagedTensorBufferFromRequirements", create_buffer),
    SYMBOL("LiteRtDestroyTensorBuffer", destroy_buffer),
    SYMBOL("LiteRtGetTensorBufferPackedSize", buffer_size),
    SYMBOL("LiteRtLockTensorBuffer", lock),
    SYMBOL("LiteRtUnlockTensorBuffer", unlock),
    SYMBOL("LiteRtRunCompiledModel", run),
};

/* One side of the model: a buffer per tensor of the signature, and where each tensor of the file is among them. */
typedef struct litert_side {
  size_t count;
  void **buffers;
  size_t *places;
} litert_side;

typedef struct litert_session {
  litert_api api;
  const engine_model *model;
  void *environment;
  void *file;
  void *options;
  void *compiled;
  size_t signature;
  litert_side inputs;
  litert_side outputs;
} litert_session;

static edgepack_code failed(const char *what, int status, edgepack_error *error) {
  return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "LiteRT cannot %s (status %d)", what, status);
}

static void free_side(const litert_api *api, litert_side *side) {
  for (size_t i = 0; side->buffers != NULL && i < side->count; ++i) {
    if (side->buffers[i] != NULL) {
      api->destroy_buffer(side->buffers[i]);
    }
  }
  free(side->buffers);
  free(side->places);
}

static void litert_close(void *opened) {
  litert_session *session = opened;
  const litert_api *api = &session->api;
  free_side(api, &session->inputs);
  free_side(api, &session->outputs);
  if (session->compiled != NULL) {
    api->destroy_compiled(session->compiled);
  }
  if (session->options != NULL) {
    api->destroy_options(session->options);
  }
  if (session->file != NULL) {
    api->destroy_model(session->file);
  }
  if (session->environment != NULL) {
    api->destroy_environment(session->environment);
  }
  free(session);
}

static edgepack_code compile(litert_session *session, const runtime_request *request, edgepack_error *error) {
  const litert_api *api = &session->api;
  int status = api->create_environment(0, NULL, &session->environment);
  if (status != 0) {
    return failed("start", status, error);
  }
  status = api->create_model(session->environment, request->paths[0], &session->file);
  if (status == kUnsupported) {
    return engine_fail(error, EDGEPACK_RUNTIME_FAILED,
                       "LiteRT cannot read the model (status %d): a model with state needs libtensorflowlite_c.so",
                       status);
  }
  if (status != 0) {
    return failed("read the model", status, error);
  }
  status = api->create_options(&session->options);
  if (status == 0) {
    status = api->set_accelerators(session->options, kCpu);
  }
  char settings[48];
  snprintf(settings, sizeof settings, "num_threads = %d\n", request->threads);
  char *payload = strdup(settings);
  void *opaque = NULL;
  if (status == 0 && payload != NULL) {
    status = api->create_opaque("xnnpack", payload, free, &opaque);
    payload = status == 0 ? NULL : payload;
  }
  if (status == 0 && opaque != NULL) {
    status = api->add_opaque(session->options, opaque);
  }
  free(payload);
  if (status == 0) {
    status = api->compile(session->environment, session->file, session->options, &session->compiled);
  }
  return status == 0 ? EDGEPACK_OK : failed("prepare the model", status, error);
}

/* Finds the signature of the main graph: LiteRT runs signatures only, and makes one up for files without. */
static edgepack_code find_signature(litert_session *session, void **signature, void **graph, edgepack_error *error) {
  const litert_api *api = &session->api;
  size_t count = 0;
  int status = api->subgraph(session->file, 0, graph);
  if (status == 0) {
    status = api->signature_count(session->file, &count);
  }
  for (size_t i = 0; status == 0 && i < count; ++i) {
    void *theirs = NULL;
    status = api->signature(session->file, i, signature);
    if (status == 0) {
      status = api->signature_subgraph(*signature, &theirs);
    }
    if (status == 0 && theirs == *graph) {
      session->signature = i;
      return EDGEPACK_OK;
    }
  }
  return failed("find the signature of the model's main graph", status, error);
}

typedef int (*litert_count)(void *owner, size_t *count);
typedef int (*litert_tensor)(void *owner, size_t index, void **tensor);

/* Finds where each of the graph's tensors is in the signature, whose order may be another one. */
static edgepack_code map_side(const litert_api *api, litert_side *side, void *signature, litert_tensor of_signature,
                              void *graph, litert_count graph_count, litert_tensor of_graph, size_t expected,
                              edgepack_error *error) {
  size_t count = 0;
  int status = graph_count(graph, &count);
  if (status != 0 || count != expected) {
    return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "expected %zu inputs or outputs, the file has %zu", expected,
                       count);
  }
  for (size_t i = 0; i < expected; ++i) {
    void *tensor = NULL;
    uint32_t wanted = 0;
    status = of_graph(graph, i, &tensor);
    status = status == 0 ? api->tensor_index(tensor, &wanted) : status;
    size_t place = 0;
    for (; status == 0 && place < side->count; ++place) {
      uint32_t index = 0;
      status = of_signature(signature, place, &tensor);
      status = status == 0 ? api->tensor_index(tensor, &index) : status;
      if (index == wanted) {
        break;
      }
    }
    if (status != 0 || place == side->count) {
      return failed("find a tensor of the main graph in its signature", status, error);
    }
    side->places[i] = place;
  }
  return EDGEPACK_OK;
}

static edgepack_code make_buffers(litert_session *session, litert_side *side, void *signature,
                                  litert_tensor of_signature, int input, edgepack_error *error) {
  const litert_api *api = &session->api;
  for (size_t i = 0; i < side->count; ++i) {
    void *tensor = NULL;
    void *requirements = NULL;
    litert_tensor_type type;
    memset(&type, 0, sizeof type);
    int status = of_signature(signature, i, &tensor);
    status = status == 0 ? api->tensor_type(tensor, &type) : status;
    if (status == 0) {
      status = input ? api->input_requirements(session->compiled, session->signature, i, &requirements)
                     : api->output_requirements(session->compiled, session->signature, i, &requirements);
    }
    status = status == 0 ? api->create_buffer(session->environment, &type, requirements, &side->buffers[i]) : status;
    if (status != 0) {
      return failed("make a buffer", status, error);
    }
  }
  return EDGEPACK_OK;
}

static edgepack_code check_side(const litert_api *api, const litert_side *side, const engine_tensor *tensors,
                                size_t count, void *graph, litert_tensor of_graph, edgepack_error *error) {
  for (size_t i = 0; i < count; ++i) {
    void *tensor = NULL;
    litert_tensor_type type;
    size_t size = 0;
    const size_t expected = tensors[i].elements * engine_type_size(tensors[i].type);
    int status = of_graph(graph, i, &tensor);
    status = status == 0 ? api->tensor_type(tensor, &type) : status;
    status = status == 0 ? api->buffer_size(side->buffers[side->places[i]], &size) : status;
    if (status != 0 || type.element_type != (int32_t)tensors[i].type || size != expected) {
      return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "'%s': expected %zu bytes of %s, the file has %zu of %s",
                         tensors[i].field, expected, engine_type_name(tensors[i].type), size,
                         status == 0 ? engine_type_name((engine_type)type.element_type) : "an unknown type");
    }
  }
  return EDGEPACK_OK;
}

static edgepack_code make_side(litert_session *session, litert_side *side, void *signature, void *graph, int input,
                               edgepack_error *error) {
  const litert_api *api = &session->api;
  const engine_model *model = session->model;
  const litert_tensor of_signature = input ? api->signature_input : api->signature_output;
  const litert_tensor of_graph = input ? api->subgraph_input : api->subgraph_output;
  const litert_count graph_count = input ? api->subgraph_inputs : api->subgraph_outputs;
  const size_t expected = input ? model->input_count : model->output_count;
  const int status = (input ? api->signature_inputs : api->signature_outputs)(signature, &side->count);
  if (status != 0) {
    return failed("read the signature", status, error);
  }
  side->buffers = calloc(side->count + 1, sizeof *side->buffers);
  side->places = calloc(expected + 1, sizeof *side->places);
  if (side->buffers == NULL || side->places == NULL) {
    return engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
  }
  edgepack_code code = map_side(api, side, signature, of_signature, graph, graph_count, of_graph, expected, error);
  if (code == EDGEPACK_OK) {
    code = make_buffers(session, side, signature, of_signature, input, error);
  }
  if (code == EDGEPACK_OK) {
    code = check_side(api, side, input ? model->inputs : model->outputs, expected, graph, of_graph, error);
  }
  return code;
}

static edgepack_code litert_open(void *library, const runtime_request *request, void **opened, edgepack_error *error) {
  litert_session *session = calloc(1, sizeof *session);
  if (session == NULL) {
    return engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
  }
  session->model = request->model;
  void *signature = NULL;
  void *graph = NULL;
  edgepack_code code = runtime_symbols(library, kSymbols, sizeof kSymbols / sizeof kSymbols[0], &session->api, error);
  if (code == EDGEPACK_OK) {
    code = compile(session, request, error);
  }
  if (code == EDGEPACK_OK) {
    code = find_signature(session, &signature, &graph, error);
  }
  if (code == EDGEPACK_OK) {
    code = make_side(session, &session->inputs, signature, graph, 1, error);
  }
  if (code == EDGEPACK_OK) {
    code = make_side(session, &session->outputs, signature, graph, 0, error);
  }
  if (code != EDGEPACK_OK) {
    litert_close(session);
    return code;
  }
  *opened = session;
  return EDGEPACK_OK;
}

static edgepack_code litert_run(void *opened, const void *const *inputs, void *const *outputs, edgepack_error *error) {
  litert_session *session = opened;
  const litert_api *api = &session->api;
  const engine_model *model = session->model;
  void *memory = NULL;
  for (size_t i = 0; i < model->input_count; ++i) {
    void *buffer = session->inputs.buffers[session->inputs.places[i]];
    int status = api->lock(buffer, &memory, kLockWrite);
    if (status == 0) {
      memcpy(memory, inputs[i], model->inputs[i].elements * engine_type_size(model->inputs[i].type));
      status = api->unlock(buffer);
    }
    if (status != 0) {
      return failed("take the inputs", status, error);
    }
  }
  const int ran = api->run(session->compiled, session->signature, session->inputs.count, session->inputs.buffers,
                           session->outputs.count, session->outputs.buffers);
  if (ran != 0) {
    return failed("run the model", ran, error);
  }
  for (size_t i = 0; i < model->output_count; ++i) {
    void *buffer = session->outputs.buffers[session->outputs.places[i]];
    if (outputs[i] == NULL) {
      continue;
    }
    int status = api->lock(buffer, &memory, kLockRead);
    if (status == 0) {
      memcpy(outputs[i], memory, model->outputs[i].elements * engine_type_size(model->outputs[i].type));
      status = api->unlock(buffer);
    }
    if (status != 0) {
      return failed("give the outputs", status, error);
    }
  }
  return EDGEPACK_OK;
}

static void litert_describe(void *library, char *text, size_t size) {
  (void)library; /* LiteRT's C API does not tell its version. */
  snprintf(text, size, "LiteRT");
}

const runtime_kind runtime_litert = {
    "LiteRT", "LiteRtCreateCompiledModel", 0, litert_describe, litert_open, litert_run, litert_close,
};
