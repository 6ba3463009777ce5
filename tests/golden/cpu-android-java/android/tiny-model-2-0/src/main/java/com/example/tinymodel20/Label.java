package com.example.tinymodel20;

/** A label and its value. */
public final class Label {
  private final String text;
  private final float score;

  Label(String text, float score) {
    this.text = text;
    this.score = score;
  }

  public String getText() {
    return text;
  }

  public float getScore() {
    return score;
  }
}
