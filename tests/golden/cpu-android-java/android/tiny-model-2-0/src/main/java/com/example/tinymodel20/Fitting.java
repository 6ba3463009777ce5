package com.example.tinymodel20;

/**
 * The part of an upright picture that is resized, and the part of the input that it fills; the rest
 * stays black.
 */
final class Fitting {
  final int innerWidth;
  final int innerHeight;
  final int innerLeft;
  final int innerTop;
  final double sourceWidth;
  final double sourceHeight;
  private final Frame frame;
  private final int width;
  private final int height;
  private final int pictureWidth;
  private final int pictureHeight;

  Fitting(Frame frame, int width, int height, Fit fit) {
    this.frame = frame;
    this.width = width;
    this.height = height;
    pictureWidth = frame.getUprightWidth();
    pictureHeight = frame.getUprightHeight();
    boolean letterbox = fit == Fit.LETTERBOX;
    boolean centerCrop = fit == Fit.CENTER_CROP;
    double smaller = Math.min((double) width / pictureWidth, (double) height / pictureHeight);
    double larger = Math.min((double) pictureWidth / width, (double) pictureHeight / height);
    innerWidth = letterbox ? Math.max((int) Math.rint(pictureWidth * smaller), 1) : width;
    innerHeight = letterbox ? Math.max((int) Math.rint(pictureHeight * smaller), 1) : height;
    innerLeft = (width - innerWidth) / 2;
    innerTop = (height - innerHeight) / 2;
    sourceWidth = centerCrop ? width * larger : pictureWidth;
    sourceHeight = centerCrop ? height * larger : pictureHeight;
  }

  FrameMapping mapping() {
    return new FrameMapping(
        frame.left,
        frame.top,
        frame.right - frame.left,
        frame.bottom - frame.top,
        frame.rotation,
        frame.mirrored,
        sourceWidth / pictureWidth * width / innerWidth,
        sourceHeight / pictureHeight * height / innerHeight,
        (1 - sourceWidth / pictureWidth) / 2 - (double) innerLeft / innerWidth,
        (1 - sourceHeight / pictureHeight) / 2 - (double) innerTop / innerHeight);
  }
}
