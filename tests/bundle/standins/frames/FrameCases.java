package com.frames.tinymodel20;

import android.graphics.Bitmap;
import android.graphics.Rect;
import android.media.Image;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

/**
 * Converts frames with a generated loader, the Kotlin or the Java one.
 *
 * <p>Argument: a folder. Each line of its `cases.txt` is a number and a frame: format, width, height, row strides of Y
 * or RGBA and of U and V, pixel stride of U and V, crop, rotation, mirrored, then the input: width, height, channels,
 * type, scale, zero point and fit. The pixels are in `N.0`, `N.1` and `N.2`. Writes the input to `N.out`, and to `N.map`
 * where four points of the input are in the frame. All cases with the same input run through one converter, which has to
 * notice what changes from frame to frame. With a number of frames after the folder, it converts each case as often
 * again and prints the bytes that this allocated and the median of the CPU's milliseconds. Without arguments it prints
 * what frames refuse.
 */
public final class FrameCases {
  private static final float[] MEAN = {123.7f, 116.3f, 103.5f};
  private static final float[] STD = {58.4f, 57.1f, 57.4f};

  private final Path folder;
  private final String[] words;
  private final Frame frame;
  private String input = "";
  private FrameConverter converter;
  private ByteBuffer buffer;

  private FrameCases(Path folder, String[] words, FrameCases before) {
    this.folder = folder;
    this.words = words;
    this.frame = before == null ? new Frame() : before.frame;
    String key = String.join(" ", Arrays.copyOfRange(words, 13, words.length));
    if (before != null && before.input.equals(key)) {
      converter = before.converter;
      buffer = before.buffer;
    }
    input = key;
  }

  public static void main(String[] arguments) throws IOException {
    if (arguments.length == 0) {
      refuse();
      return;
    }
    Path folder = Path.of(arguments[0]);
    FrameCases last = null;
    for (String line : Files.readAllLines(folder.resolve("cases.txt"))) {
      last = new FrameCases(folder, line.split(" "), last);
      last.convert();
      if (arguments.length > 1) {
        last.measure(Integer.parseInt(arguments[1]));
      }
    }
  }

  /** Prints what a frame says of arguments that are wrong. */
  private static void refuse() {
    ByteBuffer small = ByteBuffer.allocateDirect(10);
    Frame frame = new Frame().setRgba(ByteBuffer.allocateDirect(16), 2, 2, 8);
    Runnable[] mistakes = {
      () -> frame.setYuv420(small, small, small, 8, 2, 8, 4, 1),
      () -> frame.setNv21(new byte[23], 4, 4),
      () -> frame.setRgba(small, 2, 2, 6),
      () -> frame.setRgba(small, 0, 2, 8),
      () -> frame.setRgba(ByteBuffer.allocateDirect(16), 2, 2, 8).crop(1, 0, 3, 2),
      () -> frame.rotate(45),
      () -> frame.set(new Image(256, 2, 2, null)),
    };
    for (Runnable mistake : mistakes) {
      try {
        mistake.run();
        System.out.println("accepted");
      } catch (IllegalArgumentException error) {
        System.out.println(error.getMessage());
      }
    }
  }

  private int number(int index) {
    return Integer.parseInt(words[index]);
  }

  private byte[] pixels(int plane) throws IOException {
    return Files.readAllBytes(folder.resolve(words[0] + "." + plane));
  }

  private ByteBuffer direct(int plane) throws IOException {
    byte[] bytes = pixels(plane);
    ByteBuffer direct = ByteBuffer.allocateDirect(bytes.length);
    direct.put(bytes);
    // Where another reader left it: the loader reads from the start and puts it back.
    direct.position(Math.min(3, bytes.length));
    return direct;
  }

  private void convert() throws IOException {
    fill();
    if (converter == null) {
      int channels = number(15);
      TensorSpec.Type type = TensorSpec.Type.valueOf(words[16]);
      int elements = number(13) * number(14) * channels;
      TensorSpec tensor = new TensorSpec("x", type, elements, Float.parseFloat(words[17]), number(18));
      Fit fit = Fit.valueOf(words[19].toUpperCase().replace('-', '_'));
      float[] mean = Arrays.copyOf(MEAN, channels);
      converter = new FrameConverter(tensor, number(13), number(14), mean, Arrays.copyOf(STD, channels), fit);
      buffer = ByteBuffer.allocateDirect(tensor.getBytes()).order(ByteOrder.nativeOrder());
    }
    buffer.rewind();
    converter.write(frame, buffer);
    byte[] written = new byte[buffer.capacity()];
    buffer.rewind();
    buffer.get(written);
    Files.write(folder.resolve(words[0] + ".out"), written);
    FrameMapping mapping = converter.mapping(frame);
    StringBuilder points = new StringBuilder();
    for (float[] at : new float[][] {{0, 0}, {1, 0}, {0.25f, 0.75f}, {1, 1}}) {
      FramePoint point = mapping.toOriginal(at[0], at[1]);
      points.append(point.getX()).append(' ').append(point.getY()).append('\n');
    }
    Files.writeString(folder.resolve(words[0] + ".map"), points);
  }

  private void fill() throws IOException {
    int width = number(2);
    int height = number(3);
    Rect crop = new Rect(number(7), number(8), number(9), number(10));
    switch (words[1]) {
      case "yuv":
        frame.setYuv420(direct(0), direct(1), direct(2), width, height, number(4), number(5), number(6));
        break;
      case "image":
        Image.Plane y = new Image.Plane(direct(0), number(4), 1);
        Image.Plane u = new Image.Plane(direct(1), number(5), number(6));
        frame.set(new Image(35, width, height, crop, y, u, new Image.Plane(direct(2), number(5), number(6))));
        break;
      case "nv21":
        frame.setNv21(pixels(0), width, height);
        break;
      case "nv12":
        frame.setNv12(pixels(0), width, height);
        break;
      case "rgba":
        frame.setRgba(direct(0), width, height, number(4));
        break;
      case "rgba-image":
        frame.set(new Image(1, width, height, crop, new Image.Plane(direct(0), number(4), 4)));
        break;
      default:
        ByteBuffer rgba = ByteBuffer.wrap(pixels(0));
        int[] packed = new int[width * height];
        for (int i = 0; i < packed.length; i++) {
          packed[i] = Integer.rotateRight(rgba.getInt(4 * i), 8);
        }
        frame.set(new Bitmap(packed, width, height, Bitmap.Config.valueOf(words[1])));
    }
    if (!words[1].contains("image")) {
      frame.crop(crop.left, crop.top, crop.right, crop.bottom);
    }
    frame.rotate(number(11));
    if (number(12) == 1) {
      frame.mirror();
    }
  }

  private void measure(int frames) {
    com.sun.management.ThreadMXBean threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
    long self = Thread.currentThread().getId();
    long[] nanoseconds = new long[frames];
    long bytes = Long.MAX_VALUE;
    // The first rounds warm up the converter and what counts. The JVM may still allocate for itself in one of the others;
    // what a frame needs shows in all of them.
    for (int round = 0; round < 8; round++) {
      long before = threads.getThreadAllocatedBytes(self);
      repeat(nanoseconds, threads);
      long allocated = threads.getThreadAllocatedBytes(self) - before;
      bytes = round < 2 ? bytes : Math.min(bytes, allocated);
    }
    Arrays.sort(nanoseconds);
    System.out.println(bytes + " " + nanoseconds[frames / 2] / 1e6);
  }

  private void repeat(long[] nanoseconds, com.sun.management.ThreadMXBean threads) {
    for (int i = 0; i < nanoseconds.length; i++) {
      long start = threads.getCurrentThreadCpuTime();
      buffer.rewind();
      converter.write(frame, buffer);
      nanoseconds[i] = threads.getCurrentThreadCpuTime() - start;
    }
  }
}
