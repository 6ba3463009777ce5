package com.example.tinymodel20;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Consumer;
import java.util.function.Function;

/** One loaded model, open with the first attempt that succeeds. */
final class ModelRunner implements AutoCloseable {
  /** One way to run the model; opening throws when the device does not support it. */
  static final class Attempt {
    final String accelerator;
    final Callable<Engine> opener;

    Attempt(String accelerator, Callable<Engine> opener) {
      this.accelerator = accelerator;
      this.opener = opener;
    }
  }

  private static final int WARM_UPS = 3;

  private final List<Attempt> attempts;
  // A GPU delegate must be created, run and closed on one thread; other accelerators allow any
  // thread.
  private final ExecutorService executor =
      Executors.newSingleThreadExecutor(
          task -> {
            Thread thread = new Thread(task, "model-runner");
            thread.setDaemon(true);
            return thread;
          });
  private final ModelStatus status;
  private Engine engine;

  ModelRunner(List<Attempt> attempts) {
    this.attempts = attempts;
    boolean opened = false;
    try {
      this.status = onThread(this::open);
      opened = true;
    } finally {
      if (!opened) {
        executor.shutdown();
      }
    }
  }

  ModelStatus getStatus() {
    return status;
  }

  /** Fills the inputs, runs the model and reads the outputs, all on the model's own thread. */
  <T> T run(Consumer<List<ByteBuffer>> write, Function<List<ByteBuffer>, T> read) {
    return onThread(
        () -> {
          Engine live = live();
          fill(live, write);
          live.invoke();
          live.outputs().forEach(Assets::rewind);
          live.readOutputs();
          return read.apply(live.outputs());
        });
  }

  /** Fills the inputs once and returns the duration of each run in nanoseconds. */
  long[] time(int runs, Consumer<List<ByteBuffer>> write) {
    return onThread(
        () -> {
          Engine live = live();
          fill(live, write);
          for (int i = 0; i < WARM_UPS; i++) {
            live.invoke();
          }
          long[] nanoseconds = new long[runs];
          for (int i = 0; i < runs; i++) {
            long start = System.nanoTime();
            live.invoke();
            nanoseconds[i] = System.nanoTime() - start;
          }
          return nanoseconds;
        });
  }

  /** Resets the state of a stateful model. */
  void reset() {
    onThread(
        () -> {
          live().reset();
          return true;
        });
  }

  @Override
  public void close() {
    if (executor.isShutdown()) {
      return;
    }
    onThread(
        () -> {
          if (engine != null) {
            engine.close();
            engine = null;
          }
          return true;
        });
    executor.shutdown();
  }

  private ModelStatus open() {
    List<String> reasons = new ArrayList<>();
    for (Attempt attempt : attempts) {
      try {
        engine = attempt.opener.call();
        return new ModelStatus(attempt.accelerator, reasons);
      } catch (Exception | LinkageError error) {
        // A linkage error means that this device or this app lacks a native library or a class.
        String message = error.getMessage();
        reasons.add(
            attempt.accelerator
                + ": "
                + (message == null ? error.getClass().getSimpleName() : message));
      }
    }
    throw new IllegalStateException(
        "the model does not run on this device: " + String.join("; ", reasons));
  }

  private static void fill(Engine live, Consumer<List<ByteBuffer>> write) throws Exception {
    live.inputs().forEach(Assets::rewind);
    write.accept(live.inputs());
    live.inputs().forEach(Assets::rewind);
    live.writeInputs();
  }

  private Engine live() {
    if (engine == null) {
      throw new IllegalStateException("the model is closed");
    }
    return engine;
  }

  private <T> T onThread(Callable<T> block) {
    if (executor.isShutdown()) {
      throw new IllegalStateException("the model is closed");
    }
    try {
      return executor.submit(block).get();
    } catch (ExecutionException error) {
      if (error.getCause() instanceof RuntimeException) {
        throw (RuntimeException) error.getCause();
      }
      if (error.getCause() instanceof Error) {
        throw (Error) error.getCause();
      }
      throw new IllegalStateException(error.getCause());
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted while the model was running", error);
    }
  }
}
