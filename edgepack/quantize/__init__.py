"""Calibrate a float model, choose a scheme and ranges, and quantize: flatbuffer to flatbuffer, without TensorFlow."""
