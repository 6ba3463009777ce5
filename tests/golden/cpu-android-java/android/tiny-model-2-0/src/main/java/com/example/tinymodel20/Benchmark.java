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

  /** Returns what ran the model. */
  public String getAccelerator() {
    return accelerator;
  }

  /** Returns how many runs were timed. */
  public int getRuns() {
    return sorted.length;
  }

  /** Returns the time that half of the runs stayed within, in milliseconds. */
  public double getMedianMillis() {
    return within(50);
  }

  /** Returns the time that nine of ten runs stayed within, in milliseconds. */
  public double getP90Millis() {
    return within(90);
  }

  private double within(int percent) {
    return sorted[(sorted.length * percent + 99) / 100 - 1] / 1e6;
  }
}
