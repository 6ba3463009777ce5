package com.example.tinymodel20;

import java.util.Collections;
import java.util.List;

/** What runs the model. */
public final class ModelStatus {
  private final String accelerator;
  private final List<String> reasons;

  ModelStatus(String accelerator, List<String> reasons) {
    this.accelerator = accelerator;
    this.reasons = Collections.unmodifiableList(reasons);
  }

  /** Returns {@code HTP}, {@code DSP}, {@code GPU} or {@code CPU}. */
  public String getAccelerator() {
    return accelerator;
  }

  /**
   * Returns why not something better, in the order tried; empty when the first choice was taken.
   */
  public List<String> getReasons() {
    return reasons;
  }
}
