package com.google.ai.edge.litert;

/** Stand-in, see CompiledModel. */
public enum Accelerator {
  NONE,
  CPU,
  GPU,
  NPU
}
