"""Find ranges, choose a scheme, and make the integer file: flatbuffer to flatbuffer, without TensorFlow."""
