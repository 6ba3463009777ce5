"""Google Coral's runtime library on this machine, for boards and machines that run bundles of the Edge TPU."""

import ctypes.util

from edgepack.tools import ToolInfo

_INSTALL = (
    "only for running bundles on an Edge TPU: libedgetpu of the community's maintained fork "
    "(github.com/feranick/libedgetpu), in the version for the installed runtime; Google's 16.0 of 2021 crashes under "
    "tflite-runtime 2.12 and later"
)


def find_runtime_library() -> ToolInfo:
    """Return whether libedgetpu is installed, for `edgepack doctor`; it is looked up and not loaded."""
    path = ctypes.util.find_library("edgetpu") or ""
    problem = "" if path else "the system's loader finds no libedgetpu"
    return ToolInfo("libedgetpu", path, "", bool(path), problem, "" if path else _INSTALL)
