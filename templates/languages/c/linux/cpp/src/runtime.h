/* A runtime library, loaded by name: the C API of TensorFlow Lite, or LiteRT's. Made by edgepack; the same file in
 * every Linux bundle. */
#ifndef EDGEPACK_RUNTIME_H_
#define EDGEPACK_RUNTIME_H_

#include "engine.h"

/* A function of the library to look up. */
typedef struct runtime_symbol {
  const char *name;
  size_t offset; /* of the function pointer in the table to fill */
} runtime_symbol;

/* What a session is made of. */
typedef struct runtime_request {
  const char *const *paths; /* the model's file, or its segments in order */
  void *const *delegates;   /* a TfLiteDelegate, or null, for each */
  size_t count;
  int threads;
  const engine_model *model;
} runtime_request;

/* How one kind of library is used. */
typedef struct runtime_kind {
  const char *name;
  const char *mark;    /* a function that tells the kind */
  int takes_delegates; /* whether libedgetpu's delegate can be attached */
  void (*describe)(void *library, char *text, size_t size);
  edgepack_code (*open)(void *library, const runtime_request *request, void **session, edgepack_error *error);
  /* Inputs and outputs in the file's order; null for an output that is not wanted. */
  edgepack_code (*run)(void *session, const void *const *inputs, void *const *outputs, edgepack_error *error);
  void (*close)(void *session);
} runtime_kind;

extern const runtime_kind runtime_tflite;
extern const runtime_kind runtime_litert;

/* Loads a library, `wanted` or the usual ones, and tells its kind; writes its name to `name`. */
const runtime_kind *runtime_load(const char *wanted, void **library, char *name, size_t size, edgepack_error *error);

/* Fills a table of function pointers. */
edgepack_code runtime_symbols(void *library, const runtime_symbol *symbols, size_t count, void *table,
                              edgepack_error *error);

#endif /* EDGEPACK_RUNTIME_H_ */
