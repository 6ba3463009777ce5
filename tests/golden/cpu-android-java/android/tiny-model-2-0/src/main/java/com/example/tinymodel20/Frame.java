package com.example.tinymodel20;

import android.graphics.Bitmap;
import android.graphics.ImageFormat;
import android.graphics.PixelFormat;
import android.graphics.Rect;
import android.media.Image;
import java.nio.Buffer;
import java.nio.ByteBuffer;

/**
 * A picture in memory, such as a camera's: its pixels are read where they are.
 *
 * <p>One frame can serve a whole stream without an allocation. Each {@code set} method takes the
 * next picture, whole, upright and not mirrored; {@link #crop}, {@link #rotate} and {@link #mirror}
 * then describe it. The pixels must not change while the model runs, and another thread must not
 * read the same {@link ByteBuffer} meanwhile, because its position moves.
 *
 * <p>For an {@code ImageProxy} of CameraX: {@code
 * frame.set(proxy.getImage()).rotate(proxy.getImageInfo().getRotationDegrees())}.
 */
public final class Frame {
  enum Format {
    YUV,
    RGBA,
    BITMAP
  }

  final Plane[] planes = {new Plane(), new Plane(), new Plane()};
  Format format = Format.RGBA;
  Bitmap bitmap;
  int left;
  int top;
  int right;
  int bottom;
  int rotation;
  boolean mirrored;
  private int width;
  private int height;

  /** Returns the width of the picture in pixels, before it is cropped and rotated. */
  public int getWidth() {
    return width;
  }

  /** Returns the height of the picture in pixels, before it is cropped and rotated. */
  public int getHeight() {
    return height;
  }

  /** Takes an image of the format YUV_420_888 or RGBA_8888, with its crop rectangle. */
  public Frame set(Image image) {
    Image.Plane[] planes = image.getPlanes();
    switch (image.getFormat()) {
      case ImageFormat.YUV_420_888:
        setYuv420(
            planes[0].getBuffer(),
            planes[1].getBuffer(),
            planes[2].getBuffer(),
            image.getWidth(),
            image.getHeight(),
            planes[0].getRowStride(),
            planes[1].getRowStride(),
            planes[1].getPixelStride());
        break;
      case PixelFormat.RGBA_8888:
        setRgba(
            planes[0].getBuffer(), image.getWidth(), image.getHeight(), planes[0].getRowStride());
        break;
      default:
        throw new IllegalArgumentException(
            "image: expected the format YUV_420_888 or RGBA_8888, got " + image.getFormat());
    }
    Rect rectangle = image.getCropRect();
    return crop(rectangle.left, rectangle.top, rectangle.right, rectangle.bottom);
  }

  /** Takes a bitmap; one whose pixels only the GPU has is copied. */
  public Frame set(Bitmap bitmap) {
    begin(Format.BITMAP, bitmap.getWidth(), bitmap.getHeight());
    // A hardware bitmap's pixels cannot be read. Compared by name: Android 7 lacks the constant.
    this.bitmap =
        String.valueOf(bitmap.getConfig()).equals("HARDWARE")
            ? bitmap.copy(Bitmap.Config.ARGB_8888, false)
            : bitmap;
    return this;
  }

  /**
   * Takes the planes of YUV_420_888, each from position 0 of its buffer: full range, colors of
   * ITU-R BT.601, as cameras give them.
   *
   * @param uvRowStride Bytes from one row of U, and of V, to the next.
   * @param uvPixelStride Bytes from one value of U, and of V, to the next: 1, or 2 where both are
   *     interleaved.
   */
  public Frame setYuv420(
      ByteBuffer y,
      ByteBuffer u,
      ByteBuffer v,
      int width,
      int height,
      int yRowStride,
      int uvRowStride,
      int uvPixelStride) {
    begin(Format.YUV, width, height);
    int columns = (width + 1) / 2;
    int rows = (height + 1) / 2;
    planes[0].set(y, width, height, yRowStride, 1, 1);
    planes[1].set(u, columns, rows, uvRowStride, uvPixelStride, 1);
    planes[2].set(v, columns, rows, uvRowStride, uvPixelStride, 1);
    return this;
  }

  /**
   * Takes NV21: all Y, then V and U by turns; the same colors as YUV_420_888, rows without gaps.
   */
  public Frame setNv21(byte[] bytes, int width, int height) {
    return setSemiPlanar(bytes, width, height, 1);
  }

  /**
   * Takes NV12: all Y, then U and V by turns; the same colors as YUV_420_888, rows without gaps.
   */
  public Frame setNv12(byte[] bytes, int width, int height) {
    return setSemiPlanar(bytes, width, height, 0);
  }

  /**
   * Takes pixels of four bytes, red, green, blue and one that is ignored, from position 0 of the
   * buffer.
   */
  public Frame setRgba(ByteBuffer pixels, int width, int height, int rowStride) {
    begin(Format.RGBA, width, height);
    planes[0].set(pixels, width, height, rowStride, 4, 3);
    return this;
  }

  /**
   * Limits the picture to a rectangle of its pixels, as they are in memory; right and bottom are
   * exclusive.
   */
  public Frame crop(int left, int top, int right, int bottom) {
    if (left < 0 || left >= right || right > width || top < 0 || top >= bottom || bottom > height) {
      throw new IllegalArgumentException(
          String.format(
              "crop: expected a rectangle within %d x %d, got (%d, %d, %d, %d)",
              width, height, left, top, right, bottom));
    }
    this.left = left;
    this.top = top;
    this.right = right;
    this.bottom = bottom;
    return this;
  }

  /**
   * Says by how many degrees the picture must be rotated clockwise to be upright, as CameraX's
   * {@code rotationDegrees}.
   */
  public Frame rotate(int degrees) {
    if (degrees % 90 != 0) {
      throw new IllegalArgumentException("degrees: expected a multiple of 90, got " + degrees);
    }
    rotation = Math.floorMod(degrees, 360);
    return this;
  }

  /** Says that the upright picture is to be mirrored, left to right. */
  public Frame mirror() {
    mirrored = true;
    return this;
  }

  boolean isTurned() {
    return rotation % 180 != 0;
  }

  int getUprightWidth() {
    return isTurned() ? bottom - top : right - left;
  }

  int getUprightHeight() {
    return isTurned() ? right - left : bottom - top;
  }

  private Frame setSemiPlanar(byte[] bytes, int width, int height, int u) {
    begin(Format.YUV, width, height);
    int columns = (width + 1) / 2;
    int rows = (height + 1) / 2;
    planes[0].set(bytes, 0, width, height, width, 1);
    planes[1].set(bytes, width * height + u, columns, rows, 2 * columns, 2);
    planes[2].set(bytes, width * height + 1 - u, columns, rows, 2 * columns, 2);
    return this;
  }

  private void begin(Format format, int width, int height) {
    if (width < 1 || height < 1) {
      throw new IllegalArgumentException(
          "expected a picture with pixels, got " + width + " x " + height);
    }
    this.format = format;
    this.width = width;
    this.height = height;
    bitmap = null;
    crop(0, 0, width, height);
    rotation = 0;
    mirrored = false;
  }

  /** Values of one byte in an array or in a buffer. */
  static final class Plane {
    private byte[] bytes;
    private ByteBuffer buffer;
    private int offset;
    private int rowStride;
    private int pixelStride = 1;
    private int sampleBytes = 1;

    int getPixelStride() {
      return pixelStride;
    }

    void set(
        ByteBuffer buffer, int columns, int rows, int rowStride, int pixelStride, int sampleBytes) {
      check(columns, rows, 0, rowStride, pixelStride, sampleBytes, buffer.limit());
      this.buffer = buffer;
      bytes = null;
    }

    void set(byte[] bytes, int offset, int columns, int rows, int rowStride, int pixelStride) {
      check(columns, rows, offset, rowStride, pixelStride, 1, bytes.length);
      this.bytes = bytes;
      buffer = null;
    }

    /** Copies a row, or a part of it, to the start of a line. */
    void read(int row, int column, int columns, byte[] line) {
      int start = offset + row * rowStride + column * pixelStride;
      int size = (columns - 1) * pixelStride + sampleBytes;
      if (bytes != null) {
        System.arraycopy(bytes, start, line, 0, size);
        return;
      }
      // This type selects methods that exist in every Android version.
      Buffer moving = buffer;
      int position = moving.position();
      moving.position(start);
      buffer.get(line, 0, size);
      moving.position(position);
    }

    private void check(
        int columns,
        int rows,
        int offset,
        int rowStride,
        int pixelStride,
        int sampleBytes,
        int size) {
      long row = (columns - 1L) * pixelStride + sampleBytes;
      if (pixelStride < sampleBytes || rowStride < row) {
        throw new IllegalArgumentException(
            String.format(
                "expected strides for %d values in a row, got a row stride of %d and a pixel stride"
                    + " of %d",
                columns, rowStride, pixelStride));
      }
      long needed = offset + (rows - 1L) * rowStride + row;
      if (size < needed) {
        throw new IllegalArgumentException(
            "expected at least " + needed + " bytes of pixels, got " + size);
      }
      this.offset = offset;
      this.rowStride = rowStride;
      this.pixelStride = pixelStride;
      this.sampleBytes = sampleBytes;
    }
  }
}
