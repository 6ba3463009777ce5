package com.example.tinymodel20;

/**
 * Leads from a place in an input of the model back to the pixels of the frame that the input was
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
  private final double startX;
  private final double startY;

  FrameMapping(Frame frame, Fitting fitting) {
    left = frame.left;
    top = frame.top;
    rotation = frame.rotation;
    mirrored = frame.mirrored;
    width = frame.getUprightWidth();
    height = frame.getUprightHeight();
    scaleX = fitting.sourceWidth / fitting.innerWidth * fitting.width;
    scaleY = fitting.sourceHeight / fitting.innerHeight * fitting.height;
    startX = fitting.sourceLeft - fitting.sourceWidth / fitting.innerWidth * fitting.innerLeft;
    startY = fitting.sourceTop - fitting.sourceHeight / fitting.innerHeight * fitting.innerTop;
  }

  /**
   * Returns a place in pixels of the frame: the inverse of resizing, mirroring, rotating and
   * cropping.
   *
   * @param x Fraction of the input's width, 0 to 1 from left to right.
   * @param y Fraction of the input's height, 0 to 1 from top to bottom.
   */
  public FramePoint toOriginal(float x, float y) {
    double across = startX + x * scaleX;
    double right = mirrored ? width - across : across;
    double down = startY + y * scaleY;
    switch (rotation) {
      case 0:
        return point(right, down);
      case 90:
        return point(down, width - right);
      case 180:
        return point(width - right, height - down);
      default:
        return point(height - down, right);
    }
  }

  private FramePoint point(double x, double y) {
    return new FramePoint((float) (left + x), (float) (top + y));
  }
}
