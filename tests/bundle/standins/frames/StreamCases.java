package com.frames.tinymodel20;

import java.nio.ByteBuffer;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;

/** Offers frames to a stream whose function waits until it may return, as a slow model does. */
public final class StreamCases {
  public static void main(String[] arguments) throws InterruptedException {
    BlockingQueue<String> said = new ArrayBlockingQueue<>(1);
    AtomicInteger released = new AtomicInteger();
    CountDownLatch slow = new CountDownLatch(1);
    FrameStream<Integer> stream =
        new FrameStream<>(
            frame -> {
              await(slow);
              if (frame.getWidth() == 1) {
                throw new IllegalStateException("no model");
              }
              return 2 * frame.getWidth();
            },
            result -> said.add("result " + result + ", released " + released),
            error -> said.add("error " + error.getMessage()));
    ByteBuffer pixels = ByteBuffer.allocateDirect(64);
    System.out.println("first " + stream.offer(released::incrementAndGet, frame -> frame.setRgba(pixels, 2, 2, 8)));
    boolean dropped = stream.offer(released::incrementAndGet, frame -> frame.setRgba(pixels, 4, 2, 16));
    System.out.println("dropped " + dropped + ", released " + released);
    slow.countDown();
    System.out.println(said.take());
    System.out.println("second " + stream.offer(released::incrementAndGet, frame -> frame.setRgba(pixels, 3, 2, 12)));
    System.out.println(said.take());
    stream.offer(released::incrementAndGet, frame -> frame.setRgba(pixels, 1, 2, 4));
    System.out.println(said.take());
    stream.close();
    boolean closed = stream.offer(released::incrementAndGet, frame -> frame.setRgba(pixels, 2, 2, 8));
    System.out.println("closed " + closed + ", released " + released);
  }

  private static void await(CountDownLatch latch) {
    try {
      latch.await();
    } catch (InterruptedException error) {
      throw new IllegalStateException(error);
    }
  }
}
