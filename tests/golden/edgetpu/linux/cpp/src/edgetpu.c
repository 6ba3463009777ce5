/* libedgetpu's C API, declared here so that no header of it is needed. Made by edgepack. */
#include "edgetpu.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"

/* The runtime version that the compiled model needs. */
enum { kNeeded = 14 };
enum { kPci = 0, kUsb = 1 };

static const char kLibrary[] = "libedgetpu.so.1";
#define INSTALL "install a libedgetpu of runtime version %d or later (16.0 has 14: the package libedgetpu1-std)"

typedef struct edgetpu_device {
  int type; /* kPci or kUsb */
  const char *path;
} edgetpu_device;

typedef struct edgetpu_api {
  edgetpu_device *(*list_devices)(size_t *count);
  void (*free_devices)(edgetpu_device *devices);
  void *(*create_delegate)(int type, const char *path, const void *options, size_t count);
  void (*free_delegate)(void *delegate);
  const char *(*version)(void);
} edgetpu_api;

#define SYMBOL(name, member) {name, offsetof(edgetpu_api, member)}
static const runtime_symbol kSymbols[] = {
    SYMBOL("edgetpu_list_devices", list_devices),
    SYMBOL("edgetpu_free_devices", free_devices),
    SYMBOL("edgetpu_create_delegate", create_delegate),
    SYMBOL("edgetpu_free_delegate", free_delegate),
    SYMBOL("edgetpu_version", version),
};

/* Reads "", ":N", "usb", "usb:N", "pci" or "pci:N"; returns 0 for anything else. `type` is -1 for any. */
static int parse_device(const char *text, int *type, long *number) {
  *type = -1;
  *number = 0;
  if (strncmp(text, "usb", 3) == 0 || strncmp(text, "pci", 3) == 0) {
    *type = text[0] == 'u' ? kUsb : kPci;
    text += 3;
  }
  if (text[0] == '\0') {
    return 1;
  }
  char *end = NULL;
  *number = strtol(text + 1, &end, 10);
  return text[0] == ':' && text[1] >= '0' && text[1] <= '9' && *end == '\0';
}

/* Returns the version in "... RuntimeVersion(14)", 0 when there is none. */
static long runtime_version(const char *text) {
  const char *found = text != NULL ? strstr(text, "RuntimeVersion(") : NULL;
  return found != NULL ? strtol(found + strlen("RuntimeVersion("), NULL, 10) : 0;
}

edgepack_code edgetpu_attach(const char *wanted, engine_delegate *delegate, edgepack_error *error) {
  edgetpu_api api;
  int type = -1;
  long number = 0;
  if (!parse_device(wanted, &type, &number)) {
    return engine_fail(error, EDGEPACK_BAD_ARGUMENT,
                       "device: expected '', ':N', 'usb', 'usb:N', 'pci' or 'pci:N', got '%.40s'", wanted);
  }
  /* Never closed: it keeps threads of its own. */
  void *library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    const char *reason = dlerror();
    return engine_fail(error, EDGEPACK_NO_ACCELERATOR, "no Edge TPU: %s: " INSTALL, reason != NULL ? reason : kLibrary,
                       (int)kNeeded);
  }
  if (runtime_symbols(library, kSymbols, sizeof kSymbols / sizeof kSymbols[0], &api, error) != EDGEPACK_OK) {
    return EDGEPACK_NO_ACCELERATOR;
  }
  const long version = runtime_version(api.version());
  if (version != 0 && version < kNeeded) {
    return engine_fail(error, EDGEPACK_NO_ACCELERATOR, "%s has runtime version %ld, this model needs %d: " INSTALL,
                       kLibrary, version, (int)kNeeded, (int)kNeeded);
  }
  size_t count = 0;
  edgetpu_device *devices = api.list_devices(&count);
  long seen = 0;
  for (size_t i = 0; devices != NULL && i < count && delegate->delegate == NULL; ++i) {
    if (type != -1 && devices[i].type != type) {
      continue;
    }
    if (seen++ == number) {
      delegate->delegate = api.create_delegate(devices[i].type, devices[i].path, NULL, 0);
      delegate->destroy = api.free_delegate;
    }
  }
  if (devices != NULL) {
    api.free_devices(devices);
  }
  if (delegate->delegate != NULL) {
    return EDGEPACK_OK;
  }
  return seen > number
             ? engine_fail(error, EDGEPACK_NO_ACCELERATOR, "the Edge TPU '%.40s' cannot be opened: is it in use?",
                           wanted)
             : engine_fail(error, EDGEPACK_NO_ACCELERATOR, "no Edge TPU '%.40s' among the %zu found", wanted, count);
}
