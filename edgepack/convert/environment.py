"""How TensorFlow is imported in the child: quiet, on the CPU, with the same results on every machine."""

import os
import sys
from importlib import import_module
from typing import Any

from edgepack.lean_import import lean_import

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    # oneDNN kernels differ between CPUs in the last digits.
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
}


#: What Keras imports where it is installed, for its wrappers: a fifth of TensorFlow's whole import (0.6 of 2.8 s of CPU
#: time; a third with the garbage collector off, 1.0 s).
_UNUSED = ("sklearn",)


def import_tensorflow() -> Any:
    """Return the module `tensorflow`, imported without GPUs. Call this before importing Keras."""
    os.environ.update(_ENVIRONMENT)
    if "tensorflow" not in sys.modules:
        # Once only: what is alive afterwards, such as a model, is never collected.
        with lean_import(*_UNUSED):
            import_module("tensorflow")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf
