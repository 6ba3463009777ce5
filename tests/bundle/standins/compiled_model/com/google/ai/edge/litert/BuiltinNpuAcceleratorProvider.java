package com.google.ai.edge.litert;

import android.content.Context;

/** Stand-in, see CompiledModel. */
public final class BuiltinNpuAcceleratorProvider implements NpuAcceleratorProvider {
  private final NpuCompatibilityChecker checker;

  public BuiltinNpuAcceleratorProvider(Context context, NpuCompatibilityChecker checker) {
    this.checker = checker;
  }

  /** LiteRT's own list of chips. */
  public BuiltinNpuAcceleratorProvider(Context context) {
    this(context, () -> Boolean.getBoolean("replay.listed"));
  }

  @Override
  public boolean isDeviceSupported() {
    return checker.isDeviceSupported();
  }

  @Override
  public boolean isLibraryReady() {
    return true;
  }

  @Override
  public String getLibraryDir() {
    return "";
  }
}
