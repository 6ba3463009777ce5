package com.example.tinymodel20;

/** How a picture gets the input's size. */
enum Fit {
  STRETCH,
  LETTERBOX,
  CENTER_CROP
}
