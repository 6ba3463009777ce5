import android.graphics.Bitmap;
import java.lang.reflect.Array;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/**
 * Uses a generated loader as an app would, whatever the model's names are.
 *
 * <p>Arguments: the class, the number of runs, the getters of the outputs separated by commas, then pictures as
 * FILE:WIDTH:HEIGHT:CONFIG. Reads `N/real_I.bin` (arguments of run N, little endian), writes `N/result_I.bin` (what the
 * getters returned), runs the pictures, then prints what the loader says: status, best labels, self-test and benchmark.
 */
public final class Drive {
  public static void main(String[] arguments) throws Exception {
    Path folder = Path.of(System.getProperty("replay.folder"));
    Class<?> type = Class.forName(arguments[0]);
    Class<?> context = Class.forName("android.content.Context");
    Object model = type.getConstructor(context, int.class).newInstance(context.getConstructor().newInstance(), 2);
    Method run = runOf(type);
    Object result = null;
    for (int n = 0; n < Integer.parseInt(arguments[1]); n++) {
      Class<?>[] types = run.getParameterTypes();
      Object[] values = new Object[types.length];
      for (int i = 0; i < types.length; i++) {
        values[i] = decode(types[i], Files.readAllBytes(folder.resolve(n + "/real_" + i + ".bin")));
      }
      result = call(run, model, values);
      String[] getters = arguments[2].split(",");
      for (int i = 0; i < getters.length; i++) {
        Object array = call(result.getClass().getMethod(getters[i]), result);
        Files.write(folder.resolve(n + "/result_" + i + ".bin"), encode(array));
      }
    }
    for (int n = 3; n < arguments.length; n++) {
      call(type.getMethod("run", Bitmap.class), model, picture(folder, arguments[n].split(":")));
    }
    Object status = call(type.getMethod("getStatus"), model);
    System.out.println("accelerator " + get(status, "Accelerator"));
    for (Object reason : (List<?>) get(status, "Reasons")) {
      System.out.println("reason " + reason);
    }
    for (Object difference : (List<?>) call(type.getMethod("selfTest"), model)) {
      System.out.println(
          "golden " + get(difference, "Case") + " " + get(difference, "Output").toString().replace(' ', '_') + " "
              + get(difference, "Largest") + " " + get(difference, "Allowed") + " " + get(difference, "Ok"));
    }
    Object times = call(type.getMethod("benchmark", int.class), model, 4);
    System.out.println(
        "benchmark " + get(times, "Accelerator") + " " + get(times, "Runs") + " " + get(times, "MedianMillis") + " "
            + get(times, "P90Millis"));
    if (hasLabels(result)) {
      Method topK = result.getClass().getMethod("topK", int.class);
      System.out.println("labels " + ((List<?>) call(topK, result, 1000)).size());
      for (Object label : (List<?>) call(topK, result, 3)) {
        System.out.println("label " + get(label, "Text") + " " + get(label, "Score"));
      }
    }
    call(type.getMethod("close"), model);
    call(type.getMethod("close"), model);
    try {
      call(type.getMethod("reset"), model);
    } catch (IllegalStateException error) {
      System.out.println("closed " + error.getMessage());
    }
  }

  private static Bitmap picture(Path folder, String[] description) throws Exception {
    byte[] bytes = Files.readAllBytes(folder.resolve(description[0]));
    int[] pixels = new int[bytes.length / 4];
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer().get(pixels);
    int width = Integer.parseInt(description[1]);
    int height = Integer.parseInt(description[2]);
    return new Bitmap(pixels, width, height, Bitmap.Config.valueOf(description[3]));
  }

  private static boolean hasLabels(Object result) {
    for (Method method : result.getClass().getMethods()) {
      if (method.getName().equals("topK")) {
        return true;
      }
    }
    return false;
  }

  private static Method runOf(Class<?> type) {
    for (Method method : type.getMethods()) {
      boolean arrays = true;
      for (Class<?> parameter : method.getParameterTypes()) {
        arrays &= parameter.isArray();
      }
      if (method.getName().equals("run") && arrays) {
        return method;
      }
    }
    throw new IllegalStateException("no run with arrays");
  }

  private static Object get(Object object, String property) throws Exception {
    return call(object.getClass().getMethod("get" + property), object);
  }

  private static Object call(Method method, Object object, Object... arguments) throws Exception {
    try {
      return method.invoke(object, arguments);
    } catch (InvocationTargetException error) {
      throw error.getCause() instanceof Exception cause ? cause : error;
    }
  }

  private static Object decode(Class<?> type, byte[] bytes) {
    ByteBuffer buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    if (type != float[].class) {
      throw new IllegalArgumentException("expected float[], got " + type);
    }
    float[] values = new float[bytes.length / 4];
    buffer.asFloatBuffer().get(values);
    return values;
  }

  private static byte[] encode(Object array) {
    int length = Array.getLength(array);
    ByteBuffer buffer = ByteBuffer.allocate(8 * length).order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < length; i++) {
      if (array instanceof long[] longs) {
        buffer.putLong(longs[i]);
      } else if (array instanceof int[] ints) {
        buffer.putInt(ints[i]);
      } else {
        buffer.putFloat(((float[]) array)[i]);
      }
    }
    return Arrays.copyOf(buffer.array(), buffer.position());
  }
}
