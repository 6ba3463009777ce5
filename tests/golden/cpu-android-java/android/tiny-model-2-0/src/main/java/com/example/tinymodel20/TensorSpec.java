package com.example.tinymodel20;

import java.nio.ByteBuffer;

/**
 * An input or output of the model. Real values are {@code scale * (raw - zeroPoint)}; with a scale
 * of 0 they equal the raw ones.
 */
final class TensorSpec {
  enum Type {
    FLOAT32(4, 0, 0),
    INT8(1, -128, 127),
    UINT8(1, 0, 255),
    INT16(2, -32768, 32767),
    INT32(4, 0, 0),
    INT64(8, 0, 0),
    BOOL(1, 0, 0);

    final int bytes;
    final int lowest;
    final int highest;

    Type(int bytes, int lowest, int highest) {
      this.bytes = bytes;
      this.lowest = lowest;
      this.highest = highest;
    }
  }

  final String name;
  final Type type;
  final int elements;
  final float scale;
  final int zeroPoint;
  // The runtime multiplies by the reciprocal; a division would sometimes round differently.
  private final float inverseScale;

  TensorSpec(String name, Type type, int elements, float scale, int zeroPoint) {
    this.name = name;
    this.type = type;
    this.elements = elements;
    this.scale = scale;
    this.zeroPoint = zeroPoint;
    this.inverseScale = 1f / scale;
  }

  TensorSpec(String name, Type type, int elements) {
    this(name, type, elements, 0f, 0);
  }

  int getBytes() {
    return elements * type.bytes;
  }

  /**
   * Rounds halves to even and saturates, bit for bit like QUANTIZE in the runtime's default
   * kernels.
   */
  int quantize(float real) {
    if (Float.isNaN(real)) {
      throw new IllegalArgumentException(name + ": expected numbers, got NaN");
    }
    float lowest = type.lowest - zeroPoint - 1;
    float highest = type.highest - zeroPoint + 1;
    int scaled = (int) Math.rint(Math.max(lowest, Math.min(highest, real * inverseScale)));
    return Math.max(type.lowest, Math.min(type.highest, scaled + zeroPoint));
  }

  float dequantize(int raw) {
    return (float) ((double) scale * (raw - zeroPoint));
  }

  void write(float[] values, ByteBuffer buffer) {
    checkSize(values.length);
    for (float value : values) {
      switch (type) {
        case INT8:
        case UINT8:
          buffer.put((byte) quantize(value));
          break;
        case INT16:
          buffer.putShort((short) quantize(value));
          break;
        default:
          buffer.putFloat(value);
      }
    }
  }

  void write(byte[] values, ByteBuffer buffer) {
    checkSize(values.length);
    buffer.put(values);
  }

  void write(short[] values, ByteBuffer buffer) {
    checkSize(values.length);
    for (short value : values) {
      buffer.putShort(value);
    }
  }

  void write(int[] values, ByteBuffer buffer) {
    checkSize(values.length);
    for (int value : values) {
      buffer.putInt(value);
    }
  }

  void write(long[] values, ByteBuffer buffer) {
    checkSize(values.length);
    for (long value : values) {
      buffer.putLong(value);
    }
  }

  void write(boolean[] values, ByteBuffer buffer) {
    checkSize(values.length);
    for (boolean value : values) {
      buffer.put((byte) (value ? 1 : 0));
    }
  }

  float[] readFloatArray(ByteBuffer buffer) {
    float[] values = new float[elements];
    for (int i = 0; i < elements; i++) {
      values[i] = scale == 0f ? buffer.getFloat(i * type.bytes) : dequantize(readInt(buffer, i));
    }
    return values;
  }

  byte[] readByteArray(ByteBuffer buffer) {
    byte[] values = new byte[elements];
    for (int i = 0; i < elements; i++) {
      values[i] = buffer.get(i);
    }
    return values;
  }

  short[] readShortArray(ByteBuffer buffer) {
    short[] values = new short[elements];
    for (int i = 0; i < elements; i++) {
      values[i] = buffer.getShort(i * type.bytes);
    }
    return values;
  }

  int[] readIntArray(ByteBuffer buffer) {
    int[] values = new int[elements];
    for (int i = 0; i < elements; i++) {
      values[i] = buffer.getInt(i * type.bytes);
    }
    return values;
  }

  long[] readLongArray(ByteBuffer buffer) {
    long[] values = new long[elements];
    for (int i = 0; i < elements; i++) {
      values[i] = buffer.getLong(i * type.bytes);
    }
    return values;
  }

  boolean[] readBooleanArray(ByteBuffer buffer) {
    boolean[] values = new boolean[elements];
    for (int i = 0; i < elements; i++) {
      values[i] = buffer.get(i) != 0;
    }
    return values;
  }

  /** Returns the largest absolute difference of two raw tensors, in scale steps for integers. */
  double largestDifference(ByteBuffer expected, ByteBuffer actual) {
    double largest = 0;
    for (int i = 0; i < elements; i++) {
      double one = number(expected, i);
      double other = number(actual, i);
      boolean same = one == other || (Double.isNaN(one) && Double.isNaN(other));
      double difference = same ? 0 : Math.abs(one - other);
      if (Double.isNaN(difference)) {
        return Double.POSITIVE_INFINITY;
      }
      largest = Math.max(largest, difference);
    }
    return largest;
  }

  /** Returns the largest finite magnitude of a raw tensor. */
  double largestMagnitude(ByteBuffer buffer) {
    double largest = 0;
    for (int i = 0; i < elements; i++) {
      double magnitude = Math.abs(number(buffer, i));
      if (magnitude <= Double.MAX_VALUE) {
        largest = Math.max(largest, magnitude);
      }
    }
    return largest;
  }

  private double number(ByteBuffer buffer, int index) {
    switch (type) {
      case FLOAT32:
        return buffer.getFloat(index * type.bytes);
      case INT32:
        return buffer.getInt(index * type.bytes);
      case INT64:
        return buffer.getLong(index * type.bytes);
      default:
        return readInt(buffer, index);
    }
  }

  private int readInt(ByteBuffer buffer, int index) {
    switch (type) {
      case UINT8:
        return buffer.get(index) & 0xFF;
      case INT16:
        return buffer.getShort(index * type.bytes);
      default:
        return buffer.get(index);
    }
  }

  private void checkSize(int size) {
    if (size != elements) {
      throw new IllegalArgumentException(name + ": expected " + elements + " values, got " + size);
    }
  }
}
