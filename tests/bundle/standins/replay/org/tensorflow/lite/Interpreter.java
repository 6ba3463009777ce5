package org.tensorflow.lite;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/**
 * Stand-in for the runtime on a JVM: run number N gives the outputs that the real runtime was recorded to give in run N,
 * and writes down the bytes it received. The folder in the system property `replay.folder` has, per run, `N/output_I.bin`
 * to replay; the stand-in adds `N/received_I.bin`, and `model.bin`, the model as it was handed over.
 */
public final class Interpreter implements AutoCloseable {
  public static class Options {
    public Options setNumThreads(int threads) {
      return this;
    }

    public Options addDelegate(Delegate delegate) {
      return this;
    }
  }

  private final Path folder = Path.of(System.getProperty("replay.folder"));
  private final Thread thread = Thread.currentThread();
  private int runs = 0;

  public Interpreter(ByteBuffer model, Options options) {
    if (!model.isDirect()) {
      throw new IllegalArgumentException("Model ByteBuffer should be either a MappedByteBuffer or a direct ByteBuffer");
    }
    write(folder.resolve("model.bin"), model.duplicate());
  }

  public void runForMultipleInputsOutputs(Object[] inputs, Map<Integer, Object> outputs) {
    if (Thread.currentThread() != thread) {
      throw new IllegalStateException("run on another thread than the one that made it");
    }
    Path run = folder.resolve(Integer.toString(runs++));
    for (int i = 0; i < inputs.length; i++) {
      write(run.resolve("received_" + i + ".bin"), ((ByteBuffer) inputs[i]).duplicate());
    }
    outputs.forEach((i, output) -> read(run.resolve("output_" + i + ".bin"), (ByteBuffer) output));
  }

  public void resetVariableTensors() {}

  @Override
  public void close() {}

  private static void write(Path path, ByteBuffer buffer) {
    byte[] bytes = new byte[buffer.remaining()];
    buffer.get(bytes);
    try {
      Files.write(path, bytes);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private static void read(Path path, ByteBuffer buffer) {
    try {
      byte[] bytes = Files.readAllBytes(path);
      if (bytes.length != buffer.remaining()) {
        throw new IllegalArgumentException(path + ": " + bytes.length + " bytes for " + buffer.remaining());
      }
      buffer.put(bytes);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
