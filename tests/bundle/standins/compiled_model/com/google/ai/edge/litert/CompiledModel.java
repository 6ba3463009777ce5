package com.google.ai.edge.litert;

import android.content.res.AssetManager;
import java.util.ArrayList;
import java.util.List;

/**
 * Stand-in for LiteRT's class, whose artifacts (Google's Maven repository) cannot be had here. The signatures are those of
 * LiteRT's published Kotlin sources (litert/kotlin/src/main/kotlin), as Java sees them. Its behaviour is the test's: a run
 * copies input i to output i, and an accelerator that {@link #failing} names refuses every model.
 */
public final class CompiledModel implements AutoCloseable {
  public static int open;
  public static String failing = "";
  public static int tensors = 1;
  public static final List<String> opened = new ArrayList<>();

  private CompiledModel() {
    open++;
  }

  /** CPU options. */
  public static final class CpuOptions {
    public CpuOptions(Integer numThreads, Integer xnnPackFlags, String xnnPackWeightCachePath) {}
  }

  /** Options. */
  public static final class Options {
    final Accelerator[] accelerators;
    private CpuOptions cpuOptions;

    public Options(Accelerator... accelerators) {
      this.accelerators = accelerators;
    }

    public CpuOptions getCpuOptions() {
      return cpuOptions;
    }

    public void setCpuOptions(CpuOptions options) {
      cpuOptions = options;
    }
  }

  public static CompiledModel create(
      AssetManager assets, String name, Options options, Environment environment) throws LiteRtException {
    Accelerator first = options.accelerators[0];
    opened.add(first + " " + name);
    if (failing.contains(first.name()) || (first == Accelerator.NPU && !environment.npu)) {
      throw new LiteRtException("no " + first);
    }
    return new CompiledModel();
  }

  public List<TensorBuffer> createInputBuffers() throws LiteRtException {
    return buffers();
  }

  public List<TensorBuffer> createOutputBuffers() throws LiteRtException {
    return buffers();
  }

  public void run(List<TensorBuffer> inputs, List<TensorBuffer> outputs) throws LiteRtException {
    for (int i = 0; i < outputs.size(); i++) {
      outputs.get(i).values = inputs.get(i).values;
    }
  }

  private static List<TensorBuffer> buffers() {
    List<TensorBuffer> list = new ArrayList<>();
    for (int i = 0; i < tensors; i++) {
      list.add(new TensorBuffer());
    }
    return list;
  }

  @Override
  public void close() {
    open--;
  }
}
