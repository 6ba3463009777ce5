package com.example.tinymodel20;

import android.content.Context;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.tensorflow.lite.Delegate;
import org.tensorflow.lite.Interpreter;

/** Runs the model with the Interpreter of LiteRT 1. */
final class InterpreterEngine implements Engine {
  private final List<ByteBuffer> inputs = new ArrayList<>();
  private final List<ByteBuffer> outputs = new ArrayList<>();
  private final Object[] arguments;
  private final Map<Integer, Object> results = new HashMap<>();
  private final Delegate delegate;
  private final Interpreter interpreter;

  private InterpreterEngine(
      ByteBuffer model,
      List<TensorSpec> inputs,
      List<TensorSpec> outputs,
      int threads,
      Delegate delegate) {
    for (TensorSpec input : inputs) {
      this.inputs.add(Assets.directBuffer(input.getBytes()));
    }
    for (TensorSpec output : outputs) {
      this.outputs.add(Assets.directBuffer(output.getBytes()));
    }
    arguments = this.inputs.toArray();
    for (int i = 0; i < outputs.size(); i++) {
      results.put(i, this.outputs.get(i));
    }
    Interpreter.Options options = new Interpreter.Options().setNumThreads(threads);
    if (delegate != null) {
      options.addDelegate(delegate);
    }
    this.delegate = delegate;
    interpreter = new Interpreter(model, options);
  }

  /** Returns the ways to run the model, the best one first. */
  static List<ModelRunner.Attempt> attempts(
      Context context, int threads, List<TensorSpec> inputs, List<TensorSpec> outputs) {
    ByteBuffer model = Assets.load(context.getAssets(), "tiny_model_2_0/tiny.tflite");
    List<ModelRunner.Attempt> attempts = new ArrayList<>();
    attempts.add(new ModelRunner.Attempt("CPU", () -> open(model, inputs, outputs, threads, null)));
    return attempts;
  }

  @Override
  public List<ByteBuffer> inputs() {
    return inputs;
  }

  @Override
  public List<ByteBuffer> outputs() {
    return outputs;
  }

  @Override
  public void writeInputs() {}

  @Override
  public void invoke() {
    inputs.forEach(Assets::rewind);
    outputs.forEach(Assets::rewind);
    interpreter.runForMultipleInputsOutputs(arguments, results);
  }

  @Override
  public void readOutputs() {}

  @Override
  public void reset() {
    interpreter.resetVariableTensors();
  }

  @Override
  public void close() {
    interpreter.close();
    if (delegate != null) {
      delegate.close();
    }
  }

  private static Engine open(
      ByteBuffer model,
      List<TensorSpec> inputs,
      List<TensorSpec> outputs,
      int threads,
      Delegate delegate) {
    boolean opened = false;
    try {
      Engine engine = new InterpreterEngine(model, inputs, outputs, threads, delegate);
      opened = true;
      return engine;
    } finally {
      if (!opened && delegate != null) {
        delegate.close();
      }
    }
  }
}
