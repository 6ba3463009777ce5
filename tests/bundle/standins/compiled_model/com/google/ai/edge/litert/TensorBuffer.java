package com.google.ai.edge.litert;

/** Stand-in, see CompiledModel: keeps what was written. */
public final class TensorBuffer implements AutoCloseable {
  public static int open;
  Object values;

  TensorBuffer() {
    open++;
  }

  public void writeInt(int[] data) {
    values = data.clone();
  }

  public void writeFloat(float[] data) {
    values = data.clone();
  }

  public void writeInt8(byte[] data) {
    values = data.clone();
  }

  public void writeBoolean(boolean[] data) {
    values = data.clone();
  }

  public int[] readInt() {
    return (int[]) values;
  }

  public float[] readFloat() {
    return (float[]) values;
  }

  public byte[] readInt8() {
    return (byte[]) values;
  }

  public boolean[] readBoolean() {
    return (boolean[]) values;
  }

  @Override
  public void close() {
    open--;
  }
}
