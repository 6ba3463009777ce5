package com.google.ai.edge.litert;

/** Stand-in, see CompiledModel. */
public class LiteRtException extends Exception {
  private static final long serialVersionUID = 1L;

  public LiteRtException(String message) {
    super(message);
  }
}
