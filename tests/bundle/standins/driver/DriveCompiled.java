import android.content.Context;
import com.google.ai.edge.litert.CompiledModel;
import com.google.ai.edge.litert.Environment;
import com.google.ai.edge.litert.TensorBuffer;
import java.util.Arrays;

/**
 * Opens a loader that uses LiteRT's CompiledModel, of which a stand-in copies input 0 to output 0, runs it on two floats
 * and closes it. Arguments: class, accelerators that fail. Prints what was opened, the status and what is still open; with
 * an archive of assets (system property `replay.archive`) also the differences of the self-test.
 */
public class DriveCompiled {
  public static void main(String[] arguments) throws Exception {
    CompiledModel.failing = arguments[1];
    Class<?> type = Class.forName(arguments[0]);
    try (AutoCloseable model = (AutoCloseable) type.getConstructor(Context.class).newInstance(new Context())) {
      Object status = type.getMethod("getStatus").invoke(model);
      System.out.println("accelerator " + status.getClass().getMethod("getAccelerator").invoke(status));
      System.out.println("reasons " + status.getClass().getMethod("getReasons").invoke(status));
      Object result = type.getMethod("run", float[].class).invoke(model, (Object) new float[] {1.5f, -2f});
      System.out.println("result " + Arrays.toString((float[]) result.getClass().getMethod("getY").invoke(result)));
      Object times = type.getMethod("benchmark", int.class).invoke(model, 4);
      System.out.println("runs " + times.getClass().getMethod("getRuns").invoke(times));
      if (System.getProperty("replay.archive") != null) {
        for (Object difference : (Iterable<?>) type.getMethod("selfTest").invoke(model)) {
          System.out.println("largest " + difference.getClass().getMethod("getLargest").invoke(difference));
          System.out.println("allowed " + difference.getClass().getMethod("getAllowed").invoke(difference));
        }
      }
    } catch (java.lang.reflect.InvocationTargetException error) {
      System.out.println("error " + error.getCause().getMessage());
    }
    System.out.println("opened " + CompiledModel.opened);
    System.out.println("left " + (CompiledModel.open + Environment.open + TensorBuffer.open));
  }
}
