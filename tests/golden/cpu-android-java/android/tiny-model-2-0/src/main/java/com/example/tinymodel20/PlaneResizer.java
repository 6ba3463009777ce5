package com.example.tinymodel20;

import android.graphics.Bitmap;
import java.util.Arrays;

/**
 * Resizes the values of one plane row by row, or those of all colors when they are side by side.
 */
final class PlaneResizer {
  /** Rows in memory that are filtered at once. */
  private static final int LINES = 4;

  private final int plane;
  private final int pixelStride;
  private final int colors;
  private final boolean grey;
  private final int left;
  private final TriangleFilter across;
  private final int top;
  private final TriangleFilter down;
  private final int samples;
  private final byte[][] lines;
  private final int[] packed;
  // Rows that are narrow already, as many as a row of the result needs, in blocks, for each color.
  private final int[][][][] narrow;
  private int blocks;

  /** Creates a resizer; where {@code grey}, the colors become one value as of ITU-R BT.601. */
  PlaneResizer(
      int plane,
      int pixelStride,
      int colors,
      boolean grey,
      int left,
      TriangleFilter across,
      int top,
      TriangleFilter down) {
    this.plane = plane;
    this.pixelStride = pixelStride;
    this.colors = colors;
    this.grey = grey;
    this.left = left;
    this.across = across;
    this.top = top;
    this.down = down;
    samples = across.end - across.begin;
    lines = new byte[LINES][samples * pixelStride];
    packed = new int[samples];
    narrow = new int[colors][(down.longest + LINES - 2) / LINES + 1][LINES][across.size];
  }

  void start() {
    blocks = 0;
  }

  /**
   * Writes a row of the result, the first color to {@code pixels} at {@code first}; the rows follow
   * one another.
   */
  void next(Frame frame, int row, int[][] pixels, int first) {
    int[] weights = down.weights[row];
    int begin = down.first[row] - down.begin;
    while (blocks * LINES < begin + weights.length) {
      readBlock(frame);
    }
    for (int color = 0; color < colors; color++) {
      int[] sums = pixels[first + color];
      int[][][] kept = narrow[color];
      Arrays.fill(sums, TriangleFilter.HALF);
      for (int i = 0; i < weights.length; i++) {
        int at = begin + i;
        add(sums, weights[i], kept[at / LINES % kept.length][at % LINES]);
      }
      for (int column = 0; column < sums.length; column++) {
        sums[column] = Math.min(sums[column] >> TriangleFilter.BITS, 255);
      }
    }
  }

  private void readBlock(Frame frame) {
    int row = down.begin + blocks * LINES;
    for (int i = 0; i < Math.min(LINES, down.end - row); i++) {
      readLine(frame, top + row + i, lines[i]);
    }
    for (int color = 0; color < colors; color++) {
      across.apply(lines, color, pixelStride, narrow[color][blocks % narrow[color].length]);
    }
    blocks++;
  }

  private static void add(int[] sums, int weight, int[] values) {
    for (int column = 0; column < sums.length; column++) {
      sums[column] += weight * values[column];
    }
  }

  private void readLine(Frame frame, int row, byte[] line) {
    int column = left + across.begin;
    Bitmap bitmap = frame.bitmap;
    if (bitmap == null) {
      frame.planes[plane].read(row, column, samples, line);
    } else {
      bitmap.getPixels(packed, 0, samples, column, row, samples, 1);
      for (int i = 0; i < samples; i++) {
        line[4 * i] = (byte) (packed[i] >> 16);
        line[4 * i + 1] = (byte) (packed[i] >> 8);
        line[4 * i + 2] = (byte) packed[i];
      }
    }
    if (grey) {
      toGrey(line);
    }
  }

  /** Replaces red by grey; the weights have 16 bits. */
  private void toGrey(byte[] line) {
    for (int i = 0; i < samples; i++) {
      int red = line[4 * i] & 0xFF;
      int green = line[4 * i + 1] & 0xFF;
      int blue = line[4 * i + 2] & 0xFF;
      line[4 * i] = (byte) ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16);
    }
  }
}
