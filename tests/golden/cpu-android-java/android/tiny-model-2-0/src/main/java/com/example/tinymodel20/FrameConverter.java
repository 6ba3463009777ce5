package com.example.tinymodel20;

import java.nio.ByteBuffer;

/**
 * Writes a frame to an input: cropped, resized to the input's size, rotated, mirrored, {@code
 * (pixel - mean) / std}, quantized.
 *
 * <p>Each pixel is read once, and everything that depends on the frame's layout alone is kept: a
 * frame that is like the one before causes no allocation. Like Pillow's, the bilinear filter
 * averages over all pixels when it reduces an image, along the rows in memory first; the results
 * are the same bits. It resizes Y, U and V, each with its own size, and then converts them to red,
 * green and blue as JFIF defines it: ITU-R BT.601, full range, which Android calls {@code
 * DataSpace.DATASPACE_JFIF}.
 */
final class FrameConverter {
  private final int width;
  private final int height;
  private final Fit fit;
  private final int channels;
  private final Values values;
  private Plan plan;

  FrameConverter(TensorSpec tensor, int width, int height, float[] mean, float[] std, Fit fit) {
    this.width = width;
    this.height = height;
    this.fit = fit;
    channels = mean.length;
    float[][] table = new float[channels][256];
    for (int channel = 0; channel < channels; channel++) {
      for (int pixel = 0; pixel < 256; pixel++) {
        table[channel][pixel] = (pixel - mean[channel]) / std[channel];
      }
    }
    values = new Bytes(tensor, table);
  }

  FrameMapping mapping(Frame frame) {
    return new Fitting(frame, width, height, fit).mapping();
  }

  void write(Frame frame, ByteBuffer buffer) {
    if (plan == null || !plan.serves(frame)) {
      plan = new Plan(frame);
    }
    plan.fill(frame);
    values.copyTo(buffer);
  }

  /** How frames of one layout become the input's values; columns and rows are those in memory. */
  private final class Plan {
    private final boolean yuv;
    private final Frame.Format format;
    private final int left;
    private final int top;
    private final int right;
    private final int bottom;
    private final int rotation;
    private final boolean mirrored;
    private final int pixelStride;
    private final boolean turned;
    private final Fitting fitting;
    private final int columns;
    private final int rows;
    private final int origin;
    private final int stepRight;
    private final int stepDown;
    private final int[][] pixels;
    private final PlaneResizer[] resizers;

    Plan(Frame frame) {
      format = frame.format;
      yuv = format == Frame.Format.YUV;
      left = frame.left;
      top = frame.top;
      right = frame.right;
      bottom = frame.bottom;
      rotation = frame.rotation;
      mirrored = frame.mirrored;
      pixelStride = frame.planes[1].getPixelStride();
      turned = frame.isTurned();
      fitting = new Fitting(frame, width, height, fit);
      columns = turned ? fitting.innerHeight : fitting.innerWidth;
      rows = turned ? fitting.innerWidth : fitting.innerHeight;
      origin = place(0, 0);
      stepRight = place(1, 0) - origin;
      stepDown = place(0, 1) - origin;
      pixels = new int[3][columns];
      if (yuv && channels == 3) {
        resizers =
            new PlaneResizer[] {
              resizer(0, 1, 1), resizer(1, 2, pixelStride), resizer(2, 2, pixelStride)
            };
      } else {
        resizers = new PlaneResizer[] {resizer(0, 1, yuv ? 1 : 4)};
      }
      // The borders of a letterbox stay black.
      int[] black = new int[width * height];
      for (int channel = 0; channel < channels; channel++) {
        values.set(channel, channels, channel, black);
      }
    }

    boolean serves(Frame frame) {
      return format == frame.format
          && left == frame.left
          && top == frame.top
          && right == frame.right
          && bottom == frame.bottom
          && rotation == frame.rotation
          && mirrored == frame.mirrored
          && (!yuv || pixelStride == frame.planes[1].getPixelStride());
    }

    void fill(Frame frame) {
      for (PlaneResizer resizer : resizers) {
        resizer.start();
      }
      for (int row = 0; row < rows; row++) {
        for (int i = 0; i < resizers.length; i++) {
          resizers[i].next(frame, row, pixels, i);
        }
        if (yuv && channels == 3) {
          toRgb();
        }
        int place = (origin + row * stepDown) * channels;
        for (int channel = 0; channel < channels; channel++) {
          values.set(place + channel, stepRight * channels, channel, pixels[channel]);
        }
      }
    }

    /** Returns the place in the input, counted in pixels, of a pixel of the resized frame. */
    private int place(int column, int row) {
      int across;
      int down;
      switch (rotation) {
        case 0:
          across = column;
          down = row;
          break;
        case 90:
          across = rows - 1 - row;
          down = column;
          break;
        case 180:
          across = columns - 1 - column;
          down = rows - 1 - row;
          break;
        default:
          across = row;
          down = columns - 1 - column;
      }
      if (mirrored) {
        across = fitting.innerWidth - 1 - across;
      }
      return (fitting.innerTop + down) * width + fitting.innerLeft + across;
    }

    /** Converts a row with the coefficients of JFIF in 16 bits. */
    private void toRgb() {
      for (int column = 0; column < columns; column++) {
        int y = pixels[0][column];
        int u = pixels[1][column] - 128;
        int v = pixels[2][column] - 128;
        pixels[0][column] = clip(y + ((91881 * v + 32768) >> 16));
        pixels[1][column] = clip(y + ((32768 - 22554 * u - 46802 * v) >> 16));
        pixels[2][column] = clip(y + ((116130 * u + 32768) >> 16));
      }
    }

    private int clip(int value) {
      return Math.max(0, Math.min(value, 255));
    }

    /** Returns the resizer of a plane that has one value per {@code every} pixels. */
    private PlaneResizer resizer(int plane, int every, int pixelStride) {
      double wide = turned ? fitting.sourceHeight : fitting.sourceWidth;
      double high = turned ? fitting.sourceWidth : fitting.sourceHeight;
      return new PlaneResizer(
          plane,
          pixelStride,
          yuv ? 1 : channels,
          !yuv && channels == 1,
          left / every,
          new TriangleFilter(left, right, wide, every, columns),
          top / every,
          new TriangleFilter(top, bottom, high, every, rows));
    }
  }

  /** The values of the input, from those of all 256 pixels of each channel. */
  private abstract static class Values {
    /**
     * Takes pixels of a channel, whose places in the input are {@code step} apart from {@code
     * first} on.
     */
    abstract void set(int first, int step, int channel, int[] pixels);

    abstract void copyTo(ByteBuffer buffer);
  }

  private static final class Bytes extends Values {
    private final byte[][] table;
    private final byte[] values;

    Bytes(TensorSpec tensor, float[][] pixels) {
      values = new byte[tensor.elements];
      table = new byte[pixels.length][256];
      for (int channel = 0; channel < pixels.length; channel++) {
        for (int pixel = 0; pixel < 256; pixel++) {
          table[channel][pixel] = (byte) tensor.quantize(pixels[channel][pixel]);
        }
      }
    }

    @Override
    void set(int first, int step, int channel, int[] pixels) {
      byte[] entries = table[channel];
      int index = first;
      for (int pixel : pixels) {
        values[index] = entries[pixel];
        index += step;
      }
    }

    @Override
    void copyTo(ByteBuffer buffer) {
      buffer.put(values);
    }
  }
}
