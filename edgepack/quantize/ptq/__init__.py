"""Post-training steps that improve an integer model: equalization, bias correction, rounding, ranges.

They need calibration samples but no labels, and above effort low TensorFlow. Every step edits the float model or the
ranges of its activations, so that any quantizer produces the improved file.
"""
