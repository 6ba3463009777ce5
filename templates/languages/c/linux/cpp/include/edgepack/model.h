/* Types that the C APIs of all models share. Made by edgepack; the same file in every Linux bundle. */
#ifndef EDGEPACK_MODEL_H_
#define EDGEPACK_MODEL_H_

#include <stddef.h>

/* Changes when a type below does: bundles of one program must agree on it. */
#define EDGEPACK_MODEL_ABI 1

#ifdef __cplusplus
extern "C" {
#endif

typedef enum edgepack_code {
  EDGEPACK_OK = 0,
  EDGEPACK_BAD_ARGUMENT = 1,   /* a null pointer, a value that is not a number, an unknown option */
  EDGEPACK_NO_FILE = 2,        /* a file of the model is missing or has another size */
  EDGEPACK_NO_RUNTIME = 3,     /* no usable runtime library */
  EDGEPACK_NO_ACCELERATOR = 4, /* EDGEPACK_REQUIRE and there is none */
  EDGEPACK_RUNTIME_FAILED = 5, /* the runtime refused the model or failed to run it */
  EDGEPACK_NO_MEMORY = 6
} edgepack_code;

/* What went wrong, one sentence. Functions write it only when they fail; a null pointer is allowed. */
typedef struct edgepack_error {
  edgepack_code code;
  char message[480];
} edgepack_error;

typedef enum edgepack_accelerator {
  EDGEPACK_AUTO = 0,    /* the accelerator when it is there, the CPU otherwise */
  EDGEPACK_REQUIRE = 1, /* fail without the accelerator */
  EDGEPACK_NEVER = 2    /* the CPU */
} edgepack_accelerator;

/* How to load a model. Zeros are the defaults. */
typedef struct edgepack_options {
  const char *data_dir;        /* folder with the model's files; null: the one compiled in */
  const char *runtime_library; /* runtime to load; null: the one compiled in, then the usual names */
  int threads;                 /* threads of the CPU kernels; 0: one */
  edgepack_accelerator accelerator;
  const char *device; /* which Edge TPU: "" or null for any, ":0", "usb", "usb:0", "pci" or "pci:0"; for a model in
                         segments one for each, separated by commas */
  const char *compiled_file; /* another file compiled for the Edge TPU in place of the model's own, such as one that was
                                co-compiled with another model: a name in data_dir or a path; null: the model's own */
} edgepack_options;

/* What runs a model, and why not something better. */
typedef struct edgepack_status {
  char runtime[64]; /* "TensorFlow Lite 2.18.0" or "LiteRT" */
  char library[256]; /* the library's file or name */
  const char *accelerator; /* "edgetpu" or "cpu" */
  const char *model; /* the file that runs */
  char reason[480]; /* why not the accelerator; empty when the best was taken */
} edgepack_status;

/* One output of one golden case, compared raw. Integers are counted in steps, other values absolutely; `largest` is
 * infinite when the loader makes something else of the golden raw values than it should. */
typedef struct edgepack_difference {
  size_t golden_case;
  size_t output;
  double largest;
  double allowed;
  int ok; /* 1 when `largest` is allowed; never for NaN */
} edgepack_difference;

/* A label with its score. */
typedef struct edgepack_label {
  const char *label;
  float score;
  size_t index;
} edgepack_label;

#ifdef __cplusplus
}
#endif

#endif /* EDGEPACK_MODEL_H_ */
