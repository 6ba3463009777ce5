"""How TensorFlow is imported in the child: quiet, on the CPU, with the same results on every machine."""

import os
from typing import Any

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    # oneDNN kernels differ between CPUs in the last digits.
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
}


def import_tensorflow() -> Any:
    """Return the module `tensorflow`, imported without GPUs. Call this before importing Keras."""
    os.environ.update(_ENVIRONMENT)
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf
