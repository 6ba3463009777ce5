package android.app;

import android.content.Context;
import android.os.Bundle;
import java.util.Map;

/** Stand-in that runs a test as Android does, on a thread of its own, and prints its end as {@code am instrument -r}. */
public class Instrumentation {
  public void onCreate(Bundle arguments) {}

  public void onStart() {}

  public void start() {
    new Thread(this::onStart, "Instr: " + getClass().getName()).start();
  }

  public Context getTargetContext() {
    return new Context();
  }

  public void finish(int code, Bundle results) {
    for (Map.Entry<String, String> entry : results.values.entrySet()) {
      System.out.println("INSTRUMENTATION_RESULT: " + entry.getKey() + "=" + entry.getValue());
    }
    System.out.println("INSTRUMENTATION_CODE: " + code);
  }
}
