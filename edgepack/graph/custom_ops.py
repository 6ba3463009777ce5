"""Custom ops that compilers write into .tflite files."""

#: The part of a model that `edgetpu_compiler` compiled for the Edge TPU.
EDGETPU_OP = "edgetpu-custom-op"
