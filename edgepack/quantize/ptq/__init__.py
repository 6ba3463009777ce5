"""Improve an integer model after training: equalize, fit biases and rounding, choose ranges; no labels, no TensorFlow.

Every step edits the float model or its ranges, so that whichever quantizer writes the file writes the improved one.
"""
