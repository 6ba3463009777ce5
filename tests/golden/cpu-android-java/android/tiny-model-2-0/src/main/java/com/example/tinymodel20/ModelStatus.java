package com.example.tinymodel20;

import java.util.Collections;
import java.util.List;

/** How the model runs. */
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

  /** Returns why each better choice failed, in order; empty when the first choice is used. */
  public List<String> getReasons() {
    return reasons;
  }
}
