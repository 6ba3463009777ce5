package com.example.tinymodel20;

import android.app.Activity;
import android.os.Bundle;
import androidx.test.runner.AndroidJUnitRunner;
import java.io.IOException;
import java.io.InputStream;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/**
 * Runs the module's JUnit tests. With the argument {@code runs}, replays the golden vectors on the
 * device and times runs instead.
 *
 * <pre>
 * adb shell am instrument -w -r -e runs 50 com.example.tinymodel20.test/com.example.tinymodel20.SelfTest
 * </pre>
 *
 * <p>The result is one line of JSON under the key {@code edgepack}, or an error message under
 * {@code error}; {@code edgepack verify --device} reads it.
 */
public final class SelfTest extends AndroidJUnitRunner {
  private int runs;

  @Override
  public void onCreate(Bundle arguments) {
    String requested = arguments == null ? null : arguments.getString("runs");
    if (requested != null) {
      runs = Integer.parseInt(requested);
    }
    super.onCreate(arguments);
  }

  @Override
  public void onStart() {
    if (runs == 0) {
      super.onStart();
      return;
    }
    Bundle results = new Bundle();
    try {
      results.putString("edgepack", report().toString());
    } catch (IOException
        | JSONException
        | GeneralSecurityException
        | RuntimeException
        | LinkageError error) {
      // A LinkageError means that the runtime has no native library for this device.
      results.putString("error", error.toString());
    }
    finish(
        results.containsKey("edgepack") ? Activity.RESULT_OK : Activity.RESULT_CANCELED, results);
  }

  private JSONObject report() throws IOException, JSONException, GeneralSecurityException {
    try (TinyModel20 model = new TinyModel20(getTargetContext())) {
      JSONArray differences = new JSONArray();
      for (GoldenDifference difference : model.selfTest()) {
        JSONObject entry = new JSONObject();
        entry
            .put("case", difference.getCase())
            .put("output", difference.getOutput())
            .put("allowed", difference.getAllowed());
        // JSON has no infinity.
        entry.put(
            "largest",
            Double.isInfinite(difference.getLargest())
                ? JSONObject.NULL
                : (Object) difference.getLargest());
        differences.put(entry);
      }
      Benchmark times = model.benchmark(runs);
      return new JSONObject()
          .put("model_sha256", modelDigest())
          .put("accelerator", model.getStatus().getAccelerator())
          .put("reasons", new JSONArray(model.getStatus().getReasons()))
          .put("differences", differences)
          .put("runs", times.getRuns())
          .put("median_ms", times.getMedianMillis())
          .put("p90_ms", times.getP90Millis());
    }
  }

  private String modelDigest() throws IOException, GeneralSecurityException {
    MessageDigest digest = MessageDigest.getInstance("SHA-256");
    try (InputStream stream = getTargetContext().getAssets().open("tiny_model_2_0/tiny.tflite")) {
      byte[] part = new byte[65536];
      for (int size = stream.read(part); size >= 0; size = stream.read(part)) {
        digest.update(part, 0, size);
      }
    }
    StringBuilder text = new StringBuilder();
    for (byte value : digest.digest()) {
      text.append(String.format("%02x", value));
    }
    return text.toString();
  }
}
