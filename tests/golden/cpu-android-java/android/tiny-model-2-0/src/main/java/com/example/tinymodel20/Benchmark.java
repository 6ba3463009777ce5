package com.example.tinymodel20;

import java.util.Arrays;

/** Times of runs on this device, without filling inputs and reading outputs. */
public final class Benchmark {
  private final String accelerator;
  private final long[] sorted;

  Benchmark(String accelerator, long[] nanoseconds) {
    this.accelerator = accelerator;
    this.sorted = nanoseconds.clone();
    Arrays.sort(sorted);
  }

  /** Returns the accelerator that ran the model. */
  public String getAccelerator() {
    return accelerator;
  }

  /** Returns the number of timed runs. */
  public int getRuns() {
    return sorted.length;
  }

  /** Returns the median time of a run in milliseconds. */
  public double getMedianMillis() {
    return within(50);
  }

  /** Returns the 90th percentile of the time of a run in milliseconds. */
  public double getP90Millis() {
    return within(90);
  }

  private double within(int percent) {
    return sorted[(sorted.length * percent + 99) / 100 - 1] / 1e6;
  }
}
