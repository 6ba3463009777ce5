package com.google.ai.edge.litert;

/** Stand-in, see CompiledModel. Counts what is open, so that a test sees a leak. */
public final class Environment implements AutoCloseable {
  public static int open;
  final boolean npu;

  private Environment(boolean npu) {
    this.npu = npu;
    open++;
  }

  public static Environment create() {
    return new Environment(false);
  }

  public static Environment create(NpuAcceleratorProvider provider) {
    return new Environment(provider.isDeviceSupported() && provider.isLibraryReady());
  }

  @Override
  public void close() {
    open--;
  }
}
