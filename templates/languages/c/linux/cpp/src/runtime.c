/* Finds the runtime library. Made by edgepack; the same file in every Linux bundle. */
#include "runtime.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* TensorFlow Lite first: it is the one that takes delegates. */
static const char *const kLibraries[] = {"libtensorflowlite_c.so", "libtensorflow-lite.so", "libLiteRt.so"};

static const runtime_kind *runtime_kind_of(void *library) {
  if (dlsym(library, runtime_tflite.mark) != NULL) {
    return &runtime_tflite;
  }
  return dlsym(library, runtime_litert.mark) != NULL ? &runtime_litert : NULL;
}

const runtime_kind *runtime_load(const char *wanted, void **library, char *name, size_t size, edgepack_error *error) {
  const char *const *names = kLibraries;
  size_t count = sizeof kLibraries / sizeof kLibraries[0];
#ifdef EDGEPACK_RUNTIME_LIBRARY
  if (wanted == NULL) {
    wanted = EDGEPACK_RUNTIME_LIBRARY;
  }
#endif
  if (wanted != NULL) {
    names = &wanted;
    count = 1;
  }
  for (size_t i = 0; i < count; ++i) {
    /* Never closed: the runtimes keep threads and static objects that outlive any one model. */
    *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (*library == NULL) {
      const char *reason = dlerror();
      if (count == 1) {
        engine_fail(error, EDGEPACK_NO_RUNTIME, "cannot load the runtime: %s", reason != NULL ? reason : names[i]);
        return NULL;
      }
      continue;
    }
    const runtime_kind *kind = runtime_kind_of(*library);
    if (kind != NULL) {
      snprintf(name, size, "%s", names[i]);
      return kind;
    }
    dlclose(*library);
    if (count == 1) {
      engine_fail(error, EDGEPACK_NO_RUNTIME, "%s has the C API of neither TensorFlow Lite nor LiteRT", names[i]);
      return NULL;
    }
  }
  engine_fail(error, EDGEPACK_NO_RUNTIME,
              "no runtime library found: expected libtensorflowlite_c.so, libtensorflow-lite.so or libLiteRt.so on the "
              "loader's path, or a path in runtime_library");
  return NULL;
}

edgepack_code runtime_symbols(void *library, const runtime_symbol *symbols, size_t count, void *table,
                              edgepack_error *error) {
  for (size_t i = 0; i < count; ++i) {
    void *found = dlsym(library, symbols[i].name);
    if (found == NULL) {
      return engine_fail(error, EDGEPACK_NO_RUNTIME, "the library has no function %s: expected another version of it",
                         symbols[i].name);
    }
    /* ISO C has no conversion from an object pointer to a function pointer; POSIX promises the same representation. */
    memcpy((char *)table + symbols[i].offset, &found, sizeof found);
  }
  return EDGEPACK_OK;
}
