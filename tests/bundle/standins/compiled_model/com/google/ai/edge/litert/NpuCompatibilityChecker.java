package com.google.ai.edge.litert;

/** Stand-in, see CompiledModel. */
public interface NpuCompatibilityChecker {
  boolean isDeviceSupported();
}
