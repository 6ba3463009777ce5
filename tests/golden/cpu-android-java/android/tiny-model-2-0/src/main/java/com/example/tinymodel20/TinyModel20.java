package com.example.tinymodel20;

import android.content.Context;
import android.content.res.AssetManager;
import android.graphics.Bitmap;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Tiny Model 2.0, made by edgepack for CPU.
 *
 * <p>Loading takes a while and running blocks: do both off the main thread.
 */
public final class TinyModel20 implements AutoCloseable {
  private static final List<TensorSpec> INPUTS =
      Arrays.asList(
          new TensorSpec("My image", TensorSpec.Type.INT8, 12, 0.0078125f, -1),
          new TensorSpec("class", TensorSpec.Type.FLOAT32, 4));
  private static final List<TensorSpec> OUTPUTS =
      Arrays.asList(
          new TensorSpec("scores", TensorSpec.Type.UINT8, 3, 0.00390625f, 0),
          new TensorSpec("2nd-output", TensorSpec.Type.FLOAT32, 2),
          new TensorSpec("scores", TensorSpec.Type.INT64, 1));
  private static final ImageSpec IMAGE_0 =
      new ImageSpec(
          2, 2, new float[] {127.5f, 127.5f, 127.5f}, new float[] {127.5f, 127.5f, 127.5f});

  private final AssetManager assets;
  private final ModelRunner runner;
  private final List<String> scoresLabels;

  /** Loads the model, with four threads for the CPU kernels. */
  public TinyModel20(Context context) {
    this(context, 4);
  }

  /**
   * Loads the model.
   *
   * @param context Gives access to the model in the assets.
   * @param threads Threads of the CPU kernels.
   */
  public TinyModel20(Context context, int threads) {
    assets = context.getAssets();
    scoresLabels = Assets.lines(assets, "tiny_model_2_0/labels_0.txt");
    List<ModelRunner.Attempt> attempts = new ArrayList<>();
    ByteBuffer model = Assets.load(assets, "tiny_model_2_0/tiny.tflite");
    runner = new ModelRunner(model, INPUTS, OUTPUTS, attempts, threads);
  }

  /** Returns what runs the model, and why not something better. */
  public ModelStatus getStatus() {
    return runner.getStatus();
  }

  /**
   * Runs the model on real values.
   *
   * @param myImage 12 values, shape (1, 2, 2, 3).
   * @param classValue 4 values, shape (1, 4).
   */
  public Result run(float[] myImage, float[] classValue) {
    return runner.run(
        inputs -> {
          INPUTS.get(0).write(myImage, inputs.get(0));
          INPUTS.get(1).write(classValue, inputs.get(1));
        },
        outputs ->
            new Result(
                OUTPUTS.get(0).readFloatArray(outputs.get(0)),
                OUTPUTS.get(1).readFloatArray(outputs.get(1)),
                OUTPUTS.get(2).readLongArray(outputs.get(2)),
                labels()));
  }

  /**
   * Runs the model on pictures of any size; the sides are stretched to the input's.
   *
   * @param myImage An image; it is resized to 2 x 2.
   * @param classValue 4 values.
   */
  public Result run(Bitmap myImage, float[] classValue) {
    return run(IMAGE_0.values(myImage), classValue);
  }

  /** Forgets the state of a model that has one, so that the next run is like the first. */
  public void reset() {
    runner.reset();
  }

  /**
   * Runs the golden vectors that came with the model and returns how far the results are from the
   * expected ones.
   */
  public List<GoldenDifference> selfTest() {
    boolean cpu = getStatus().getAccelerator().equals("CPU");
    List<GoldenDifference> differences = new ArrayList<>();
    for (int i = 0; i < 1; i++) {
      int number = i;
      runner.reset();
      differences.addAll(
          runner.run(
              buffers -> putGolden(number, buffers), buffers -> compare(number, buffers, cpu)));
    }
    return differences;
  }

  /** Times 50 runs. */
  public Benchmark benchmark() {
    return benchmark(50);
  }

  /** Times some runs on a golden vector, after some that do not count. */
  public Benchmark benchmark(int runs) {
    if (runs < 1) {
      throw new IllegalArgumentException("runs: expected at least 1, got " + runs);
    }
    runner.reset();
    long[] times = runner.time(runs, buffers -> putGolden(0, buffers));
    runner.reset();
    return new Benchmark(getStatus().getAccelerator(), times);
  }

  @Override
  public void close() {
    runner.close();
  }

  private List<GoldenDifference> compare(int number, List<ByteBuffer> buffers, boolean cpu) {
    List<GoldenDifference> differences = new ArrayList<>();
    for (int i = 0; i < buffers.size(); i++) {
      TensorSpec tensor = OUTPUTS.get(i);
      ByteBuffer expected = golden(number, "output", i);
      double allowed = cpu ? 1 : 5;
      if (tensor.type == TensorSpec.Type.FLOAT32) {
        allowed = tensor.largestMagnitude(expected) * (cpu ? 0.0001 : 0.02);
      } else if (tensor.scale == 0f) {
        allowed = 0;
      }
      double largest = tensor.largestDifference(expected, buffers.get(i));
      differences.add(new GoldenDifference(number, tensor.name, largest, allowed));
    }
    return differences;
  }

  private void putGolden(int number, List<ByteBuffer> buffers) {
    for (int i = 0; i < buffers.size(); i++) {
      buffers.get(i).put(golden(number, "input", i));
    }
  }

  private ByteBuffer golden(int number, String kind, int index) {
    return Assets.read(
        assets, "tiny_model_2_0/golden/case_" + number + "/" + kind + "_" + index + ".bin");
  }

  private Map<String, List<String>> labels() {
    Map<String, List<String>> labels = new HashMap<>();
    labels.put("scores", scoresLabels);
    return labels;
  }

  /** Outputs of one run. */
  public static final class Result {
    private final float[] scores;
    private final float[] output2ndOutput;
    private final long[] scores2;
    private final Map<String, List<String>> labels;

    Result(
        float[] scores, float[] output2ndOutput, long[] scores2, Map<String, List<String>> labels) {
      this.scores = scores;
      this.output2ndOutput = output2ndOutput;
      this.scores2 = scores2;
      this.labels = labels;
    }

    /** Returns 3 values, shape (1, 3). */
    public float[] getScores() {
      return scores;
    }

    /** Returns 2 values, shape (1, 2). */
    public float[] getOutput2ndOutput() {
      return output2ndOutput;
    }

    /** Returns 1 values, shape (). */
    public long[] getScores2() {
      return scores2;
    }

    /** Returns the five labels with the highest values of {@code scores}, best first. */
    public List<Label> topK() {
      return topK(5);
    }

    /** Returns the labels with the highest values of {@code scores}, best first. */
    public List<Label> topK(int k) {
      return topK(k, "scores");
    }

    /**
     * Returns the labels with the highest values, best first.
     *
     * @param k How many.
     * @param output Which output, one of scores.
     */
    public List<Label> topK(int k, String output) {
      float[] values;
      switch (output) {
        case "scores":
          values = this.scores;
          break;
        default:
          throw new IllegalArgumentException(
              "output: expected one of " + labels.keySet() + ", got " + output);
      }
      List<String> names = labels.get(output);
      List<Label> found = new ArrayList<>();
      for (int i = 0; i < Math.min(names.size(), values.length); i++) {
        found.add(new Label(names.get(i), values[i]));
      }
      found.sort((one, other) -> Float.compare(other.getScore(), one.getScore()));
      return new ArrayList<>(found.subList(0, Math.min(k, found.size())));
    }
  }
}
