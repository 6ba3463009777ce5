package com.example.tinymodel20;

/**
 * The part of an upright picture that is resized, and the part of the input that it fills; the rest
 * stays black.
 */
final class Fitting {
  final int width;
  final int height;
  final int innerWidth;
  final int innerHeight;
  final int innerLeft;
  final int innerTop;
  final double sourceWidth;
  final double sourceHeight;
  final double sourceLeft;
  final double sourceTop;

  Fitting(int pictureWidth, int pictureHeight, int width, int height, Fit fit) {
    boolean letterbox = fit == Fit.LETTERBOX;
    boolean centerCrop = fit == Fit.CENTER_CROP;
    double smaller = Math.min((double) width / pictureWidth, (double) height / pictureHeight);
    double larger = Math.min((double) pictureWidth / width, (double) pictureHeight / height);
    this.width = width;
    this.height = height;
    innerWidth = letterbox ? Math.max((int) Math.rint(pictureWidth * smaller), 1) : width;
    innerHeight = letterbox ? Math.max((int) Math.rint(pictureHeight * smaller), 1) : height;
    innerLeft = (width - innerWidth) / 2;
    innerTop = (height - innerHeight) / 2;
    sourceWidth = centerCrop ? width * larger : pictureWidth;
    sourceHeight = centerCrop ? height * larger : pictureHeight;
    sourceLeft = (pictureWidth - sourceWidth) / 2;
    sourceTop = (pictureHeight - sourceHeight) / 2;
  }
}
