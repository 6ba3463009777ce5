/* What the engine's own files share. Made by edgepack; the same file in every Linux bundle. */
#ifndef EDGEPACK_ENGINE_STATE_H_
#define EDGEPACK_ENGINE_STATE_H_

#include "engine.h"
#include "runtime.h"

#define engine_free_all ENGINE_JOIN(EDGEPACK_PREFIX, engine_free_all)
#define engine_path ENGINE_JOIN(EDGEPACK_PREFIX, engine_path)

enum { kPathSize = 4096 };

struct engine {
  const engine_model *model;
  char *data_dir;
  char *device;
  char *compiled_file; /* for the accelerator in place of the model's own; null for these */
  edgepack_accelerator accelerator;
  int threads;
  const runtime_kind *kind;
  void *library;
  void *session;
  engine_delegate *delegates; /* one for each file on the accelerator */
  void **raw_inputs; /* staging of tensors that are not given as they are, null for the others */
  void **raw_outputs;
  void **real_outputs; /* real values of outputs with a tail */
  const void **given; /* what goes to the runtime in one run */
  void **wanted;
  edgepack_status status;
};

/* Writes the path of a file of the data folder, or of one given by its path, to `path`, which has room for kPathSize;
 * fails when it cannot be read. */
edgepack_code engine_path(const engine *self, const char *file, char *path, edgepack_error *error);

/* Frees each of `count` values, and the array; nulls are allowed. */
void engine_free_all(void **values, size_t count);

#endif /* EDGEPACK_ENGINE_STATE_H_ */
