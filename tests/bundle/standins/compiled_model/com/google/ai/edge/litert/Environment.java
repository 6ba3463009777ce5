package com.google.ai.edge.litert;

import java.util.EnumSet;
import java.util.Set;

/** Stand-in, see CompiledModel. Counts what is open, so that a test sees a leak. */
public final class Environment implements AutoCloseable {
  public static int open;
  final boolean npu;

  private Environment(boolean npu) {
    this.npu = npu;
    open++;
  }

  public static Environment create() throws LiteRtException {
    return new Environment(false);
  }

  public static Environment create(NpuAcceleratorProvider provider) throws LiteRtException {
    return new Environment(Boolean.getBoolean("replay.npu"));
  }

  public Set<Accelerator> getAvailableAccelerators() throws LiteRtException {
    return npu ? EnumSet.of(Accelerator.CPU, Accelerator.GPU, Accelerator.NPU) : EnumSet.of(Accelerator.CPU, Accelerator.GPU);
  }

  @Override
  public void close() {
    open--;
  }
}
