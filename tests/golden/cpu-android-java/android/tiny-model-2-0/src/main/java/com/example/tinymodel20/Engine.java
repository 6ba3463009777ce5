package com.example.tinymodel20;

import java.nio.ByteBuffer;
import java.util.List;

/** A model that is open on one accelerator. */
interface Engine extends AutoCloseable {
  /** Returns the raw values of the inputs, in the model's order. */
  List<ByteBuffer> inputs();

  /** Returns the raw values of the outputs, in the model's order. */
  List<ByteBuffer> outputs();

  /** Gives the inputs to the runtime. */
  void writeInputs() throws Exception;

  void invoke() throws Exception;

  /** Fills the outputs with the results. */
  void readOutputs() throws Exception;

  /** Resets the state of a stateful model. */
  void reset();

  @Override
  void close();
}
