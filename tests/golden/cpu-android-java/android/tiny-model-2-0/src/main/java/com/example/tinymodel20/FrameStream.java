package com.example.tinymodel20;

import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;
import java.util.function.Function;

/**
 * Runs a function such as {@code model::run} on a camera's frames, in a thread of its own. A frame
 * that comes while it is busy is dropped.
 *
 * <p>With CameraX: {@code stream.offer(proxy::close, frame ->
 * frame.set(proxy.getImage()).rotate(proxy.getImageInfo().getRotationDegrees()))}.
 */
public final class FrameStream<T> implements AutoCloseable {
  private final Frame frame = new Frame();
  private final AtomicBoolean busy = new AtomicBoolean();
  private final ExecutorService executor =
      Executors.newSingleThreadExecutor(
          task -> {
            Thread thread = new Thread(task, "frame-stream");
            thread.setDaemon(true);
            return thread;
          });
  private final Function<Frame, T> function;
  private final Consumer<T> onResult;
  private final Consumer<RuntimeException> onError;

  /** Creates a stream; both listeners are called in its thread. */
  public FrameStream(
      Function<Frame, T> function, Consumer<T> onResult, Consumer<RuntimeException> onError) {
    this.function = function;
    this.onResult = onResult;
    this.onError = onError;
  }

  /**
   * Takes a frame unless the last one is being worked on, and returns whether it does. Does not
   * block.
   *
   * @param release Is called when the frame's pixels are no longer needed, at once for a frame that
   *     is dropped.
   * @param fill Describes the frame to the one that it gets.
   */
  public boolean offer(Runnable release, Consumer<Frame> fill) {
    if (busy.compareAndSet(false, true)) {
      try {
        executor.execute(() -> work(release, fill));
        return true;
      } catch (RejectedExecutionException closed) {
        busy.set(false);
      }
    }
    release.run();
    return false;
  }

  /** Takes no more frames; a run that has begun finishes. */
  @Override
  public void close() {
    executor.shutdown();
  }

  private void work(Runnable release, Consumer<Frame> fill) {
    T result;
    try {
      fill.accept(frame);
      result = function.apply(frame);
    } catch (RuntimeException error) {
      onError.accept(error);
      return;
    } finally {
      release.run();
      busy.set(false);
    }
    onResult.accept(result);
  }
}
