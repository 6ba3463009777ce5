package com.example.tinymodel20;

/** A point in pixels of a picture; (0, 0) is the upper left corner of its first pixel. */
public final class FramePoint {
  private final float x;
  private final float y;

  FramePoint(float x, float y) {
    this.x = x;
    this.y = y;
  }

  public float getX() {
    return x;
  }

  public float getY() {
    return y;
  }
}
