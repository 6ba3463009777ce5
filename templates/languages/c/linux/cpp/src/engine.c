/* Opens a model's file on the best there is, and runs it. Made by edgepack; the same file in every Linux bundle. */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine_state.h"

edgepack_code engine_fail(edgepack_error *error, edgepack_code code, const char *format, ...) {
  if (error != NULL) {
    va_list arguments;
    va_start(arguments, format);
    error->code = code;
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
  }
  return code;
}

edgepack_code engine_path(const engine *self, const char *file, char *path, edgepack_error *error) {
  const char *folder = file[0] == '/' ? "" : self->data_dir;
  const int length = snprintf(path, kPathSize, "%s%s%s", folder, file[0] == '/' ? "" : "/", file);
  if (length < 0 || length >= kPathSize) {
    return engine_fail(error, EDGEPACK_BAD_ARGUMENT, "data_dir is too long");
  }
  if (access(path, R_OK) != 0) {
    return engine_fail(error, EDGEPACK_NO_FILE, "cannot read %s: %s", path, strerror(errno));
  }
  return EDGEPACK_OK;
}

/* Opens a file, or several that are run one after the other, each with its delegate. */
static edgepack_code open_files(engine *self, const char *const *files, size_t count, edgepack_error *error) {
  char *texts = calloc(count, kPathSize);
  const char **paths = calloc(count, sizeof *paths);
  void **delegates = calloc(count, sizeof *delegates);
  edgepack_code code = texts == NULL || paths == NULL || delegates == NULL
                           ? engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory")
                           : EDGEPACK_OK;
  for (size_t i = 0; code == EDGEPACK_OK && i < count; ++i) {
    code = engine_path(self, files[i], texts + i * kPathSize, error);
    paths[i] = texts + i * kPathSize;
    delegates[i] = self->delegates[i].delegate;
  }
  if (code == EDGEPACK_OK) {
    const runtime_request request = {paths, delegates, count, self->threads, self->model};
    code = self->kind->open(self->library, &request, &self->session, error);
  }
  free(texts);
  free(paths);
  free(delegates);
  return code;
}

static size_t delegate_count(const engine *self) {
  return self->model->compiled_count > 0 ? self->model->compiled_count : 1;
}

static void close_session(engine *self) {
  if (self->session != NULL) {
    self->kind->close(self->session);
    self->session = NULL;
  }
  /* Only now: the interpreter uses its delegate until it is gone. */
  for (size_t i = 0; self->delegates != NULL && i < delegate_count(self); ++i) {
    if (self->delegates[i].delegate != NULL) {
      self->delegates[i].destroy(self->delegates[i].delegate);
      self->delegates[i].delegate = NULL;
    }
  }
}

/* Writes which device the file `index` of `count` gets: the one that was named, the one at its place in a list, or,
 * when none was named, one for each. */
static edgepack_code device_of(const engine *self, size_t index, size_t count, char *device, size_t size,
                               edgepack_error *error) {
  const char *part = self->device;
  size_t names = 1;
  for (const char *at = self->device; *at != '\0'; ++at) {
    if (*at == ',' && names++ == index) {
      part = at + 1;
    }
  }
  if (self->device[0] == '\0' && count > 1) {
    snprintf(device, size, ":%zu", index);
  } else {
    snprintf(device, size, "%.*s", (int)strcspn(part, ","), part);
  }
  return names == 1 || names == count
             ? EDGEPACK_OK
             : engine_fail(error, EDGEPACK_BAD_ARGUMENT,
                           "device: expected one Edge TPU, or one for each of %zu segments, got '%.40s'", count,
                           self->device);
}

/* Attaches an accelerator to each file. Where none was named and there are fewer than files, these take turns. */
static edgepack_code attach_all(engine *self, size_t count, edgepack_error *error) {
  size_t there = count;
  for (size_t i = 0; i < count;) {
    char device[64];
    edgepack_code code = device_of(self, i % there, count, device, sizeof device, error);
    if (code == EDGEPACK_OK) {
      code = self->model->attach(device, &self->delegates[i], error);
    }
    if (code == EDGEPACK_OK) {
      ++i;
    } else if (i > 0 && there == count && self->device[0] == '\0') {
      there = i;
      snprintf(self->status.reason, sizeof self->status.reason,
               "%zu segments take turns on %zu Edge TPU%s, which is slower", count, there, there > 1 ? "s" : "");
    } else {
      return code;
    }
  }
  return EDGEPACK_OK;
}

static edgepack_code open_accelerator(engine *self, edgepack_error *error) {
  const engine_model *model = self->model;
  const char *const given[] = {self->compiled_file};
  const char *const *files = self->compiled_file != NULL ? given : model->compiled_files;
  const size_t count = self->compiled_file != NULL ? 1 : model->compiled_count;
  if (count == 0) {
    return engine_fail(error, EDGEPACK_NO_ACCELERATOR, "this bundle has no model compiled for the accelerator");
  }
  if (!self->kind->takes_delegates) {
    return engine_fail(error, EDGEPACK_NO_ACCELERATOR,
                       "the C API of %s takes no delegate of libedgetpu: give TensorFlow Lite's libtensorflowlite_c.so",
                       self->kind->name);
  }
  edgepack_code code = attach_all(self, count, error);
  if (code == EDGEPACK_OK) {
    code = open_files(self, files, count, error);
  }
  if (code == EDGEPACK_OK) {
    self->status.accelerator = model->accelerator;
    self->status.model = self->compiled_file != NULL ? self->compiled_file : model->compiled_names;
  } else {
    close_session(self);
  }
  return code;
}

/* The accelerator, or the CPU with the reason. */
static edgepack_code open_best(engine *self, edgepack_error *error) {
  self->status.reason[0] = '\0';
  if (self->model->attach != NULL && self->accelerator != EDGEPACK_NEVER) {
    edgepack_error reason = {EDGEPACK_OK, ""};
    if (open_accelerator(self, &reason) == EDGEPACK_OK) {
      return EDGEPACK_OK;
    }
    if (self->accelerator == EDGEPACK_REQUIRE) {
      return engine_fail(error, EDGEPACK_NO_ACCELERATOR, "%s was required: %.400s", self->model->accelerator,
                         reason.message);
    }
    snprintf(self->status.reason, sizeof self->status.reason, "%s", reason.message);
  } else if (self->accelerator == EDGEPACK_REQUIRE) {
    return engine_fail(error, EDGEPACK_NO_ACCELERATOR, "an accelerator was required: this model is for the CPU");
  }
  self->status.accelerator = "cpu";
  self->status.model = self->model->host_file;
  return open_files(self, &self->model->host_file, 1, error);
}

void engine_free_all(void **staging, size_t count) {
  for (size_t i = 0; staging != NULL && i < count; ++i) {
    free(staging[i]);
  }
  free(staging);
}

/* Room for raw values, or for the real ones of tensors with a tail. */
static void **make_staging(const engine_tensor *tensors, size_t count, int real) {
  void **staging = calloc(count + 1, sizeof *staging);
  for (size_t i = 0; staging != NULL && i < count; ++i) {
    if (tensors[i].tail_count == 0 && (real || tensors[i].scale == 0.0F)) {
      continue;
    }
    staging[i] = calloc(tensors[i].elements + 1, real ? sizeof(float) : engine_type_size(tensors[i].type));
    if (staging[i] == NULL) {
      engine_free_all(staging, count);
      return NULL;
    }
  }
  return staging;
}

static edgepack_code prepare(engine *self, const edgepack_options *options, edgepack_error *error) {
  const engine_model *model = self->model;
  const char *device = options->device != NULL ? options->device : "";
  const char *data_dir = options->data_dir != NULL ? options->data_dir : model->data_dir;
  if (options->threads < 0 || options->accelerator < EDGEPACK_AUTO || options->accelerator > EDGEPACK_NEVER) {
    return engine_fail(error, EDGEPACK_BAD_ARGUMENT, "expected no negative threads and a known accelerator, got %d, %d",
                       options->threads, (int)options->accelerator);
  }
  self->threads = options->threads > 0 ? options->threads : 1;
  self->accelerator = options->accelerator;
  self->device = strdup(device);
  self->compiled_file = options->compiled_file != NULL ? strdup(options->compiled_file) : NULL;
  self->delegates = calloc(delegate_count(self), sizeof *self->delegates);
  self->data_dir = strdup(data_dir);
  self->raw_inputs = make_staging(model->inputs, model->input_count, 0);
  self->raw_outputs = make_staging(model->outputs, model->output_count, 0);
  self->real_outputs = make_staging(model->outputs, model->output_count, 1);
  self->given = calloc(model->input_count + 1, sizeof *self->given);
  self->wanted = calloc(model->output_count + 1, sizeof *self->wanted);
  if (self->device == NULL || self->delegates == NULL || self->data_dir == NULL || self->raw_inputs == NULL ||
      self->raw_outputs == NULL || self->real_outputs == NULL || self->given == NULL || self->wanted == NULL ||
      (options->compiled_file != NULL && self->compiled_file == NULL)) {
    return engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
  }
  self->kind =
      runtime_load(options->runtime_library, &self->library, self->status.library, sizeof self->status.library, error);
  if (self->kind == NULL) {
    return EDGEPACK_NO_RUNTIME;
  }
  self->kind->describe(self->library, self->status.runtime, sizeof self->status.runtime);
  return open_best(self, error);
}

engine *engine_open(const engine_model *model, const edgepack_options *options, edgepack_error *error) {
  static const edgepack_options kDefaults = {NULL, NULL, 0, EDGEPACK_AUTO, NULL, NULL};
  engine *self = calloc(1, sizeof *self);
  if (self == NULL) {
    engine_fail(error, EDGEPACK_NO_MEMORY, "out of memory");
    return NULL;
  }
  self->model = model;
  if (prepare(self, options != NULL ? options : &kDefaults, error) != EDGEPACK_OK) {
    engine_close(self);
    return NULL;
  }
  return self;
}

void engine_close(engine *self) {
  if (self == NULL) {
    return;
  }
  close_session(self);
  engine_free_all(self->raw_inputs, self->model->input_count);
  engine_free_all(self->raw_outputs, self->model->output_count);
  engine_free_all(self->real_outputs, self->model->output_count);
  free(self->given);
  free(self->wanted);
  free(self->device);
  free(self->delegates);
  free(self->compiled_file);
  free(self->data_dir);
  free(self);
}

const edgepack_status *engine_status(const engine *self) { return self != NULL ? &self->status : NULL; }

edgepack_code engine_reset(engine *self, edgepack_error *error) {
  if (self == NULL) {
    return engine_fail(error, EDGEPACK_BAD_ARGUMENT, "the model is null");
  }
  /* Opened anew, because only one of the two runtimes can clear variables in place. */
  close_session(self);
  return open_best(self, error);
}

static edgepack_code check_run(const engine *self, const void *const *inputs, void *const *outputs,
                               edgepack_error *error) {
  if (self == NULL || inputs == NULL || outputs == NULL) {
    return engine_fail(error, EDGEPACK_BAD_ARGUMENT, "the model, its inputs or its outputs are null");
  }
  for (size_t i = 0; i < self->model->input_count; ++i) {
    if (inputs[i] == NULL) {
      return engine_fail(error, EDGEPACK_BAD_ARGUMENT, "'%s': expected values, got null", self->model->inputs[i].field);
    }
  }
  if (self->session == NULL) {
    return engine_fail(error, EDGEPACK_RUNTIME_FAILED, "the model is not loaded: its last reset failed");
  }
  return EDGEPACK_OK;
}

edgepack_code engine_run_raw(engine *self, const void *const *inputs, void *const *outputs, edgepack_error *error) {
  const edgepack_code code = check_run(self, inputs, outputs, error);
  return code != EDGEPACK_OK ? code : self->kind->run(self->session, inputs, outputs, error);
}

edgepack_code engine_run_real(engine *self, const void *const *inputs, void *const *outputs, edgepack_error *error) {
  edgepack_code code = check_run(self, inputs, outputs, error);
  const engine_model *model = self != NULL ? self->model : NULL;
  for (size_t i = 0; code == EDGEPACK_OK && i < model->input_count; ++i) {
    self->given[i] = inputs[i];
    if (self->raw_inputs[i] != NULL) {
      code = engine_quantize(&model->inputs[i], inputs[i], self->raw_inputs[i], error);
      self->given[i] = self->raw_inputs[i];
    }
  }
  if (code != EDGEPACK_OK) {
    return code;
  }
  for (size_t i = 0; i < model->output_count; ++i) {
    self->wanted[i] = outputs[i] != NULL && self->raw_outputs[i] != NULL ? self->raw_outputs[i] : outputs[i];
  }
  code = self->kind->run(self->session, self->given, self->wanted, error);
  for (size_t i = 0; code == EDGEPACK_OK && i < model->output_count; ++i) {
    if (outputs[i] != NULL && self->real_outputs[i] != NULL) {
      engine_finish(&model->outputs[i], self->raw_outputs[i], self->real_outputs[i], outputs[i]);
    } else if (outputs[i] != NULL && self->raw_outputs[i] != NULL) {
      engine_dequantize(&model->outputs[i], self->raw_outputs[i], outputs[i]);
    }
  }
  return code;
}
