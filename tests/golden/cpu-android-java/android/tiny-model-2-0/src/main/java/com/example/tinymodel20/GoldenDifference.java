package com.example.tinymodel20;

/** One output of one golden case, compared. */
public final class GoldenDifference {
  private final int goldenCase;
  private final String output;
  private final double largest;
  private final double allowed;

  GoldenDifference(int goldenCase, String output, double largest, double allowed) {
    this.goldenCase = goldenCase;
    this.output = output;
    this.largest = largest;
    this.allowed = allowed;
  }

  /** Returns the number of the case. */
  public int getCase() {
    return goldenCase;
  }

  /** Returns the output's name. */
  public String getOutput() {
    return output;
  }

  /** Returns the largest absolute difference of the raw values, in scale steps for integers. */
  public double getLargest() {
    return largest;
  }

  /** Returns the largest difference within the tolerance of the accelerator. */
  public double getAllowed() {
    return allowed;
  }

  /** Returns whether the difference is within the tolerance. */
  public boolean getOk() {
    return largest <= allowed;
  }
}
