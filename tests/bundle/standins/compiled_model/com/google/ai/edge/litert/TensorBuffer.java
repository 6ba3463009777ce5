package com.google.ai.edge.litert;

/** Stand-in, see CompiledModel: keeps what was written. */
public final class TensorBuffer implements AutoCloseable {
  public static int open;
  Object values;

  TensorBuffer() {
    open++;
  }

  public void writeInt(int[] data) throws LiteRtException {
    values = data.clone();
  }

  public void writeFloat(float[] data) throws LiteRtException {
    values = data.clone();
  }

  public void writeInt8(byte[] data) throws LiteRtException {
    values = data.clone();
  }

  public void writeBoolean(boolean[] data) throws LiteRtException {
    values = data.clone();
  }

  public int[] readInt() throws LiteRtException {
    return (int[]) values;
  }

  public float[] readFloat() throws LiteRtException {
    return (float[]) values;
  }

  public byte[] readInt8() throws LiteRtException {
    return (byte[]) values;
  }

  public boolean[] readBoolean() throws LiteRtException {
    return (boolean[]) values;
  }

  @Override
  public void close() {
    open--;
  }
}
