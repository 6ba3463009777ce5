package android.graphics;

/** Stand-in: pixels in memory; those of a hardware bitmap cannot be read, as on a device. */
public final class Bitmap {
  public enum Config {
    ARGB_8888,
    HARDWARE
  }

  private final int[] pixels;
  private final int width;
  private final int height;
  private final Config config;

  public Bitmap(int[] pixels, int width, int height, Config config) {
    this.pixels = pixels;
    this.width = width;
    this.height = height;
    this.config = config;
  }

  public int getWidth() {
    return width;
  }

  public int getHeight() {
    return height;
  }

  public Config getConfig() {
    return config;
  }

  public Bitmap copy(Config config, boolean mutable) {
    return new Bitmap(pixels, width, height, config);
  }

  public void getPixels(int[] into, int offset, int stride, int x, int y, int columns, int rows) {
    if (config == Config.HARDWARE) {
      throw new IllegalStateException("unable to getPixels(), pixel access is not supported on Config#HARDWARE bitmaps");
    }
    for (int row = 0; row < rows; row++) {
      System.arraycopy(pixels, (y + row) * width + x, into, offset + row * stride, columns);
    }
  }
}
