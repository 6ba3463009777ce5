package com.example.tinymodel20;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.Supplier;
import org.tensorflow.lite.Delegate;
import org.tensorflow.lite.Interpreter;

/** One loaded model. Tries the attempts in order and falls back to the CPU. */
final class ModelRunner implements AutoCloseable {
  /** One way to run the model; opening throws when the device does not support it. */
  static final class Attempt {
    final String accelerator;
    final Supplier<Delegate> opener;

    Attempt(String accelerator, Supplier<Delegate> opener) {
      this.accelerator = accelerator;
      this.opener = opener;
    }
  }

  private static final int WARM_UPS = 3;

  private final ByteBuffer model;
  private final List<Attempt> attempts;
  private final int threads;
  private final List<ByteBuffer> inputs = new ArrayList<>();
  private final List<ByteBuffer> outputs = new ArrayList<>();
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
  private Delegate delegate;
  private Interpreter interpreter;

  ModelRunner(
      ByteBuffer model,
      List<TensorSpec> inputs,
      List<TensorSpec> outputs,
      List<Attempt> attempts,
      int threads) {
    this.model = model;
    this.attempts = attempts;
    this.threads = threads;
    for (TensorSpec input : inputs) {
      this.inputs.add(Assets.directBuffer(input.getBytes()));
    }
    for (TensorSpec output : outputs) {
      this.outputs.add(Assets.directBuffer(output.getBytes()));
    }
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
          Interpreter live = live();
          inputs.forEach(Assets::rewind);
          write.accept(inputs);
          invoke(live);
          outputs.forEach(Assets::rewind);
          return read.apply(outputs);
        });
  }

  /** Fills the inputs once and returns the duration of each run in nanoseconds. */
  long[] time(int runs, Consumer<List<ByteBuffer>> write) {
    return onThread(
        () -> {
          Interpreter live = live();
          inputs.forEach(Assets::rewind);
          write.accept(inputs);
          for (int i = 0; i < WARM_UPS; i++) {
            invoke(live);
          }
          long[] nanoseconds = new long[runs];
          for (int i = 0; i < runs; i++) {
            long start = System.nanoTime();
            invoke(live);
            nanoseconds[i] = System.nanoTime() - start;
          }
          return nanoseconds;
        });
  }

  /** Resets the state of a stateful model. */
  void reset() {
    onThread(
        () -> {
          live().resetVariableTensors();
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
          if (interpreter != null) {
            interpreter.close();
            interpreter = null;
          }
          if (delegate != null) {
            delegate.close();
            delegate = null;
          }
          return true;
        });
    executor.shutdown();
  }

  private ModelStatus open() {
    List<String> reasons = new ArrayList<>();
    for (Attempt attempt : attempts) {
      Delegate candidate = null;
      try {
        candidate = attempt.opener.get();
        interpreter =
            new Interpreter(
                model, new Interpreter.Options().setNumThreads(threads).addDelegate(candidate));
        delegate = candidate;
        return new ModelStatus(attempt.accelerator, reasons);
      } catch (RuntimeException | LinkageError error) {
        // A linkage error means that this device lacks a native library.
        if (candidate != null) {
          candidate.close();
        }
        String message = error.getMessage();
        reasons.add(
            attempt.accelerator
                + ": "
                + (message == null ? error.getClass().getSimpleName() : message));
      }
    }
    interpreter = new Interpreter(model, new Interpreter.Options().setNumThreads(threads));
    return new ModelStatus("CPU", reasons);
  }

  private void invoke(Interpreter live) {
    inputs.forEach(Assets::rewind);
    outputs.forEach(Assets::rewind);
    Map<Integer, Object> results = new HashMap<>();
    for (int i = 0; i < outputs.size(); i++) {
      results.put(i, outputs.get(i));
    }
    live.runForMultipleInputsOutputs(inputs.toArray(), results);
  }

  private Interpreter live() {
    if (interpreter == null) {
      throw new IllegalStateException("the model is closed");
    }
    return interpreter;
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
