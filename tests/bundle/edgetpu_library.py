"""A stand-in for libedgetpu whose delegates support no op: records what is requested, opened, attached and freed.

It has both interfaces of the real one: the C API (`edgetpu_create_delegate`) and the plugin that Python's
runtimes load (`tflite_plugin_create_delegate`). It tells on stderr what it opens and frees.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from bundle_specs import spec_of

from edgepack.bundle.spec import BundleSpec, ModelFile

CODE = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct device { int type; const char *path; };
static struct device devices[] = {DEVICES};
struct delegate { void *data; int (*prepare)(void *, void *); void *copies[3]; int64_t flags; void *more[4]; };
static int prepare(void *context, void *delegate) { (void)context; (void)delegate; return 0; }
struct device *edgetpu_list_devices(size_t *count) { *count = COUNT; return devices; }
void edgetpu_free_devices(struct device *list) { (void)list; }
void *edgetpu_create_delegate(int type, const char *path, const void *options, size_t count) {
  (void)options; (void)count;
  fprintf(stderr, "opened %d %s\\n", type, path);
  struct delegate *made = BUSY ? NULL : calloc(1, sizeof *made);
  if (made != NULL) { made->data = made; made->prepare = prepare; }
  return made;
}
void edgetpu_free_delegate(void *delegate) {
  /* Python's runtimes free what could not be made. */
  if (delegate == NULL) { return; }
  fprintf(stderr, "freed %d\\n", ((struct delegate *)delegate)->data == delegate);
  free(delegate);
}
const char *edgetpu_version(void) { return "BuildLabel(COMPILER=12), RuntimeVersion(VERSION)"; }
void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  const char *text = count == 1 && strcmp(keys[0], "device") == 0 ? values[0] : "";
  int type = strncmp(text, "usb", 3) == 0 ? 1 : strncmp(text, "pci", 3) == 0 ? 0 : -1;
  const char *number = strchr(text, ':');
  int wanted = number != NULL ? atoi(number + 1) : 0;
  for (size_t i = 0; i < COUNT; ++i) {
    if ((type == -1 || devices[i].type == type) && wanted-- == 0) {
      return edgetpu_create_delegate(devices[i].type, devices[i].path, NULL, 0);
    }
  }
  report("no such device");
  return NULL;
}
void tflite_plugin_destroy_delegate(void *delegate) { edgetpu_free_delegate(delegate); }
"""


def standin(folder: Path, devices: str, *, version: int = 14, busy: bool = False) -> str:
    """Compile a stand-in and return the value of LD_LIBRARY_PATH with it.

    Args:
        folder: Where to; must not exist.
        devices: C initializers `{type, "path"}`, 0 for PCIe and 1 for USB.
        version: Runtime version that it says it has.
        busy: True for devices that cannot be opened.
    """
    folder.mkdir()
    code = CODE.replace("DEVICES", devices or "{0, 0}").replace("COUNT", str(devices.count("{")))
    code = code.replace("BUSY", str(int(busy))).replace("RuntimeVersion(VERSION)", f"RuntimeVersion({version})")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / "libedgetpu.so.1")],
        input=code,
        text=True,
        check=True,
    )
    return str(folder)


def segmented(data: bytes, count: int, **changes: object) -> BundleSpec:
    """Return the spec of a model whose compiled file is cut into ordinary segments."""
    # The compiler's stand-in knows how to cut; it is beside the compilers' tests.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compilers"))
    from edgetpu_standin import split

    spec = spec_of(data, "net", "edgetpu", compiled=data)
    parts = [
        ModelFile("segment", f"net_segment_{i}_of_{count}_edgetpu.tflite", part)
        for i, part in enumerate(split(data, count))
    ]
    return replace(spec, models=(spec.host, *parts), runs=parts[0].filename, **changes)
