"""Keras in a child process of the tests: quiet, on the CPU, with a fixed seed."""

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def fresh_keras() -> Any:
    """Return the module `keras` with a cleared session and the seed 1."""
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    return keras
