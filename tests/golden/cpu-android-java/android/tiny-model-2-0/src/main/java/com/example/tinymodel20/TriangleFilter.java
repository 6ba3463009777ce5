package com.example.tinymodel20;

/** A triangle filter with weights of 22 bits, along one side of a cropped plane. */
final class TriangleFilter {
  static final int BITS = 22;
  static final int HALF = 1 << (BITS - 1);

  final int size;

  /** The first value for each result, counted from the crop's first one. */
  final int[] first;

  /** The weights of the first value for each result and of those after it. */
  final int[][] weights;

  /** The first value that any result needs, and the one after the last. */
  final int begin;

  final int end;

  /** The most values that one result needs. */
  final int longest;

  // Where an image is reduced, a value has a part in two results at most, one after the other: its
  // weight in the first one is the lower half of a pair, in the second the upper half.
  private final long[] pairs;
  // Where the values of each result end.
  private final int[] ends;

  /**
   * Creates a filter.
   *
   * @param low First pixel of the crop.
   * @param high The pixel after its last.
   * @param length How much of the crop is resized, around its middle.
   * @param every Pixels per value of the plane, along each axis.
   * @param size Number of results.
   */
  TriangleFilter(int low, int high, double length, int every, int size) {
    this.size = size;
    first = new int[size];
    weights = new int[size][];
    ends = new int[size];
    int count = (high + every - 1) / every - low / every;
    // Pillow has the box in single precision.
    double offset = (double) (low % every) / every;
    float start = (float) (offset + (high - low - length) / 2 / every);
    float stop = (float) (offset + (high - low + length) / 2 / every);
    double scale = (double) (stop - start) / size;
    int most = 0;
    for (int i = 0; i < size; i++) {
      weigh(i, start + (i + 0.5) * scale, Math.max(scale, 1), count);
      most = Math.max(most, weights[i].length);
    }
    longest = most;
    begin = first[0];
    end = first[size - 1] + weights[size - 1].length;
    pairs = scale < 1 ? null : new long[end - begin];
    if (pairs != null) {
      pair();
    }
  }

  /** Filters lines whose values are {@code step} bytes apart, the first ones at {@code offset}. */
  void apply(byte[][] lines, int offset, int step, int[][] results) {
    if (pairs != null) {
      reduce(lines, offset, step, results);
      return;
    }
    for (int i = 0; i < lines.length; i++) {
      enlarge(lines[i], offset, step, results[i]);
    }
  }

  private void enlarge(byte[] line, int offset, int step, int[] results) {
    for (int i = 0; i < size; i++) {
      int sum = HALF;
      int at = offset + (first[i] - begin) * step;
      for (int weight : weights[i]) {
        sum += weight * (line[at] & 0xFF);
        at += step;
      }
      results[i] = Math.min(sum >> BITS, 255);
    }
  }

  /** Filters all lines at once, which takes half the time. */
  private void reduce(byte[][] lines, int offset, int step, int[][] results) {
    byte[] line0 = lines[0];
    byte[] line1 = lines[1];
    byte[] line2 = lines[2];
    byte[] line3 = lines[3];
    long sums0 = HALF;
    long sums1 = HALF;
    long sums2 = HALF;
    long sums3 = HALF;
    int value = 0;
    int at = offset;
    for (int i = 0; i < size; i++) {
      int stop = ends[i];
      for (; value < stop; value++) {
        long pair = pairs[value];
        sums0 += pair * (line0[at] & 0xFF);
        sums1 += pair * (line1[at] & 0xFF);
        sums2 += pair * (line2[at] & 0xFF);
        sums3 += pair * (line3[at] & 0xFF);
        at += step;
      }
      results[0][i] = Math.min((int) sums0 >> BITS, 255);
      results[1][i] = Math.min((int) sums1 >> BITS, 255);
      results[2][i] = Math.min((int) sums2 >> BITS, 255);
      results[3][i] = Math.min((int) sums3 >> BITS, 255);
      sums0 = (sums0 >>> 32) + HALF;
      sums1 = (sums1 >>> 32) + HALF;
      sums2 = (sums2 >>> 32) + HALF;
      sums3 = (sums3 >>> 32) + HALF;
    }
  }

  private void weigh(int index, double center, double reach, int count) {
    first[index] = Math.max((int) (center - reach + 0.5), 0);
    double[] shares = new double[Math.min((int) (center + reach + 0.5), count) - first[index]];
    double total = 0;
    for (int i = 0; i < shares.length; i++) {
      shares[i] = Math.max(1 - Math.abs((i + first[index] - center + 0.5) * (1 / reach)), 0);
      total += shares[i];
    }
    weights[index] = new int[shares.length];
    for (int i = 0; i < shares.length; i++) {
      weights[index][i] = (int) (0.5 + shares[i] / total * (1 << BITS));
    }
  }

  private void pair() {
    for (int i = 0; i < size; i++) {
      int shared = i > 0 ? ends[i - 1] : 0;
      for (int j = 0; j < weights[i].length; j++) {
        int at = first[i] + j - begin;
        pairs[at] |= at < shared ? (long) weights[i][j] << 32 : weights[i][j];
      }
      ends[i] = first[i] + weights[i].length - begin;
    }
  }
}
