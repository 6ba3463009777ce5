"""Accuracy on a simulated accelerator: runs of compiled files, their figures, and the ops that differ from the CPU."""
