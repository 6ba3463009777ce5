import android.graphics.Bitmap;
import java.lang.management.ManagementFactory;
import java.util.Arrays;

/**
 * How the Android loaders made an input of a Bitmap before they took frames: every row and every narrow image is a new
 * array, and the quantizer gets an array of real numbers. Kept to be measured beside the loaders of today.
 *
 * <p>Arguments: width and height of the image, size of the input, runs. Prints the bytes that a run allocates and the
 * median of its milliseconds on the CPU.
 */
final class BitmapPath {
  /** Reads one row of an image, each pixel as 0xAARRGGBB. */
  interface Rows {
    void read(int y, int[] row);
  }

  private final int width;
  private final int height;
  private final float[] mean;
  private final float[] std;

  BitmapPath(int width, int height, float[] mean, float[] std) {
    this.width = width;
    this.height = height;
    this.mean = mean;
    this.std = std;
  }

  public static void main(String[] arguments) {
    int columns = Integer.parseInt(arguments[0]);
    int rows = Integer.parseInt(arguments[1]);
    int size = Integer.parseInt(arguments[2]);
    int[] pixels = new int[columns * rows];
    for (int i = 0; i < pixels.length; i++) {
      pixels[i] = 0xFF000000 | i * 2654435;
    }
    Bitmap bitmap = new Bitmap(pixels, columns, rows, Bitmap.Config.ARGB_8888);
    BitmapPath path = new BitmapPath(size, size, new float[] {123.7f, 116.3f, 103.5f}, new float[] {58, 57, 57});
    byte[] input = new byte[size * size * 3];
    com.sun.management.ThreadMXBean threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
    long self = Thread.currentThread().getId();
    long[] nanoseconds = new long[Integer.parseInt(arguments[3])];
    long bytes = 0;
    // The first rounds warm up.
    for (int round = 0; round < 3; round++) {
      bytes = threads.getThreadAllocatedBytes(self);
      for (int run = 0; run < nanoseconds.length; run++) {
        long start = threads.getCurrentThreadCpuTime();
        path.write(bitmap, input);
        nanoseconds[run] = threads.getCurrentThreadCpuTime() - start;
      }
      bytes = threads.getThreadAllocatedBytes(self) - bytes;
    }
    Arrays.sort(nanoseconds);
    System.out.println(bytes / nanoseconds.length + " " + nanoseconds[nanoseconds.length / 2] / 1e6);
  }

  /** Quantizes as the loaders do. */
  private void write(Bitmap bitmap, byte[] input) {
    float[] values = values(bitmap);
    for (int i = 0; i < values.length; i++) {
      int scaled = (int) Math.rint(Math.max(-256, Math.min(257, values[i] * (1 / 0.0187f))));
      input[i] = (byte) Math.max(0, Math.min(255, scaled + 114));
    }
  }

  float[] values(Bitmap bitmap) {
    // A hardware bitmap's pixels cannot be read. Compared by name: Android 7 lacks the constant.
    Bitmap readable =
        String.valueOf(bitmap.getConfig()).equals("HARDWARE")
            ? bitmap.copy(Bitmap.Config.ARGB_8888, false)
            : bitmap;
    int columns = readable.getWidth();
    return values(
        columns,
        readable.getHeight(),
        (y, row) -> readable.getPixels(row, 0, columns, 0, y, columns, 1));
  }

  float[] values(int sourceWidth, int sourceHeight, Rows rows) {
    int channels = mean.length;
    Filter across = new Filter(sourceWidth, width);
    Filter down = new Filter(sourceHeight, height);
    int[] row = new int[sourceWidth];
    int[] narrow = new int[sourceHeight * width * channels];
    for (int y = 0; y < sourceHeight; y++) {
      rows.read(y, row);
      for (int channel = 0; channel < channels; channel++) {
        int[] line = components(row, channel, channels);
        for (int x = 0; x < width; x++) {
          narrow[(y * width + x) * channels + channel] = across.sum(x, line, 0, 1);
        }
      }
    }
    float[] values = new float[height * width * channels];
    for (int i = 0; i < values.length; i++) {
      int channel = i % channels;
      int pixel = down.sum(i / channels / width, narrow, i % (width * channels), width * channels);
      values[i] = (pixel - mean[channel]) / std[channel];
    }
    return values;
  }

  private static int[] components(int[] row, int channel, int channels) {
    int[] line = new int[row.length];
    for (int x = 0; x < row.length; x++) {
      int red = row[x] >> 16 & 0xFF;
      int green = row[x] >> 8 & 0xFF;
      int blue = row[x] & 0xFF;
      // ITU-R BT.601 weights in 16 bits.
      int grey = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
      line[x] = channels == 1 ? grey : channel == 0 ? red : channel == 1 ? green : blue;
    }
    return line;
  }

  /** A triangle filter from one size to another, with weights of 22 bits. */
  private static final class Filter {
    private static final int BITS = 22;

    private final int[] first;
    private final int[][] weights;

    Filter(int from, int to) {
      first = new int[to];
      weights = new int[to][];
      double scale = (double) from / to;
      double reach = Math.max(scale, 1);
      for (int i = 0; i < to; i++) {
        double center = (i + 0.5) * scale;
        first[i] = Math.max((int) (center - reach + 0.5), 0);
        double[] shares = new double[Math.min((int) (center + reach + 0.5), from) - first[i]];
        double total = 0;
        for (int j = 0; j < shares.length; j++) {
          shares[j] = Math.max(1 - Math.abs((j + first[i] - center + 0.5) * (1 / reach)), 0);
          total += shares[j];
        }
        weights[i] = new int[shares.length];
        for (int j = 0; j < shares.length; j++) {
          weights[i][j] = (int) (0.5 + shares[j] / total * (1 << BITS));
        }
      }
    }

    int sum(int index, int[] values, int offset, int step) {
      int sum = 1 << (BITS - 1);
      int[] shares = weights[index];
      for (int j = 0; j < shares.length; j++) {
        sum += shares[j] * values[offset + (first[index] + j) * step];
      }
      return Math.min(sum >> BITS, 255);
    }
  }
}
