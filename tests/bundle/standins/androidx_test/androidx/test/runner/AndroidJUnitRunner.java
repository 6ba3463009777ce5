package androidx.test.runner;

import android.app.Activity;
import android.app.Instrumentation;
import android.os.Bundle;
import androidx.test.platform.app.InstrumentationRegistry;
import org.junit.runner.JUnitCore;
import org.junit.runner.Result;

/**
 * Stand-in for AndroidX's class, whose artifacts (Google's Maven repository) cannot be had here. As there, creation
 * starts the instrumentation, which runs the tests of the argument {@code class}, here with JUnit itself.
 */
public class AndroidJUnitRunner extends Instrumentation {
  private String tests;

  @Override
  public void onCreate(Bundle arguments) {
    super.onCreate(arguments);
    tests = arguments.getString("class");
    InstrumentationRegistry.registerInstance(this, arguments);
    start();
  }

  @Override
  public void onStart() {
    super.onStart();
    Bundle results = new Bundle();
    try {
      Result result = JUnitCore.runClasses(Class.forName(tests));
      results.putString("ran", result.getRunCount() + " tests, " + result.getFailures());
    } catch (ClassNotFoundException error) {
      results.putString("error", error.toString());
    }
    finish(Activity.RESULT_OK, results);
  }
}
