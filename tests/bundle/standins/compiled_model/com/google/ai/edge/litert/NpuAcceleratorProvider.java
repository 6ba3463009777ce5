package com.google.ai.edge.litert;

/** Stand-in, see CompiledModel; without the suspending function for downloads. */
public interface NpuAcceleratorProvider {
  boolean isDeviceSupported();

  boolean isLibraryReady();

  String getLibraryDir();
}
