package com.example.tinymodel20;

import static org.junit.Assert.assertTrue;

import android.content.Context;
import androidx.test.platform.app.InstrumentationRegistry;
import org.junit.Test;

/** The model computes on this device what it computed when it was built. */
public final class GoldenVectorsTest {
  @Test
  public void outputsAreTheGoldenOnes() {
    Context context = InstrumentationRegistry.getInstrumentation().getTargetContext();
    try (TinyModel20 model = new TinyModel20(context)) {
      for (GoldenDifference difference : model.selfTest()) {
        String place =
            "case "
                + difference.getCase()
                + ", "
                + difference.getOutput()
                + ", on "
                + model.getStatus().getAccelerator();
        assertTrue(
            place + ": " + difference.getLargest() + " exceeds " + difference.getAllowed(),
            difference.getOk());
      }
    }
  }
}
