package com.example.tinymodel20;

/**
 * Leads from a place in an input of the model back to the pixels of the picture that the input was
 * made of.
 */
public final class FrameMapping {
  private final int left;
  private final int top;
  private final int width;
  private final int height;
  private final int rotation;
  private final boolean mirrored;
  private final double scaleX;
  private final double scaleY;
  private final double offsetX;
  private final double offsetY;

  /** Leads to the pixels of a whole picture that was stretched to the size of the input. */
  public FrameMapping(int width, int height) {
    this(0, 0, width, height, 0, false, 1, 1, 0, 0);
  }

  FrameMapping(
      int left,
      int top,
      int width,
      int height,
      int rotation,
      boolean mirrored,
      double scaleX,
      double scaleY,
      double offsetX,
      double offsetY) {
    this.left = left;
    this.top = top;
    this.width = width;
    this.height = height;
    this.rotation = rotation;
    this.mirrored = mirrored;
    this.scaleX = scaleX;
    this.scaleY = scaleY;
    this.offsetX = offsetX;
    this.offsetY = offsetY;
  }

  /**
   * Returns a place in pixels of the picture: resizing, mirroring, rotating and cropping are
   * undone.
   *
   * @param x Fraction of the input's width, 0 to 1 from left to right.
   * @param y Fraction of the input's height, 0 to 1 from top to bottom.
   */
  public FramePoint toOriginal(float x, float y) {
    double across = x * scaleX + offsetX;
    double right = mirrored ? 1 - across : across;
    double down = y * scaleY + offsetY;
    switch (rotation) {
      case 0:
        return point(right, down);
      case 90:
        return point(down, 1 - right);
      case 180:
        return point(1 - right, 1 - down);
      default:
        return point(1 - down, right);
    }
  }

  private FramePoint point(double x, double y) {
    return new FramePoint((float) (left + x * width), (float) (top + y * height));
  }
}
