import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/**
 * Uses the methods of a loader's task as an app would.
 *
 * <p>Argument: a file. Each of its lines is a folder, a class and a method, then width, height, crop, rotation and mirrored
 * of the frame, or the samples of each chunk and the hop for a stream. Writes to `printed` in the folder what comes of a
 * frame, and of the result of a run with its mapping.
 */
public final class DriveTask {
  private final Path folder;
  private final String[] words;
  private final StringBuilder printed = new StringBuilder();

  private DriveTask(String[] words) {
    this.folder = Path.of(words[0]);
    this.words = words;
  }

  public static void main(String[] arguments) throws Exception {
    for (String line : Files.readAllLines(Path.of(arguments[0]))) {
      DriveTask task = new DriveTask(line.split(" "));
      task.run();
      Files.writeString(task.folder.resolve("printed"), task.printed);
    }
  }

  private void run() throws Exception {
    System.setProperty("replay.folder", folder.toString());
    System.setProperty("replay.archive", folder.resolve("app.zip").toString());
    Class<?> type = Class.forName(words[1]);
    Class<?> context = Class.forName("android.content.Context");
    Object model = type.getConstructor(context, int.class).newInstance(context.getConstructor().newInstance(), 2);
    if (words[2].equals("stream")) {
      stream(model, Integer.parseInt(words[3]), Integer.parseInt(words[4]));
    } else {
      frame(type, model, frame(type.getPackageName()));
    }
    call(type.getMethod("close"), model);
  }

  private void frame(Class<?> type, Object model, Object frame) throws Exception {
    print("frame", call(type.getMethod(words[2], frame.getClass()), model, frame));
    Object result = call(type.getMethod("run", frame.getClass()), model, frame);
    Object mapping = call(type.getMethod("mapping", frame.getClass()), model, frame);
    try {
      Method both = type.getMethod(words[2], result.getClass(), mapping.getClass());
      print("result", call(both, model, result, mapping));
    } catch (NoSuchMethodException error) {
      print("result", call(type.getMethod(words[2], result.getClass()), model, result));
    }
  }

  private void stream(Object model, int chunk, int hop) throws Exception {
    Object stream = call(model.getClass().getMethod("stream", int.class, int.class), model, hop, 2);
    ByteBuffer samples = ByteBuffer.wrap(Files.readAllBytes(folder.resolve("samples"))).order(ByteOrder.LITTLE_ENDIAN);
    while (samples.hasRemaining()) {
      float[] part = new float[Math.min(chunk, samples.remaining() / 4)];
      for (int i = 0; i < part.length; i++) {
        part[i] = samples.getFloat();
      }
      Object results = call(stream.getClass().getMethod("push", float[].class), stream, part);
      for (Object result : (List<?>) results) {
        print("window", result);
      }
    }
    call(stream.getClass().getMethod("reset"), stream);
  }

  private Object frame(String place) throws Exception {
    byte[] bytes = Files.readAllBytes(folder.resolve("frame"));
    ByteBuffer pixels = ByteBuffer.allocateDirect(bytes.length).put(bytes);
    Class<?> type = Class.forName(place + ".Frame");
    int[] numbers = new int[words.length - 3];
    for (int i = 0; i < numbers.length; i++) {
      numbers[i] = Integer.parseInt(words[i + 3]);
    }
    Object frame = type.getConstructor().newInstance();
    Method set = type.getMethod("setRgba", ByteBuffer.class, int.class, int.class, int.class);
    call(set, frame, pixels, numbers[0], numbers[1], 4 * numbers[0]);
    Method crop = type.getMethod("crop", int.class, int.class, int.class, int.class);
    call(crop, frame, numbers[2], numbers[3], numbers[4], numbers[5]);
    call(type.getMethod("rotate", int.class), frame, numbers[6]);
    return numbers[7] == 1 ? call(type.getMethod("mirror"), frame) : frame;
  }

  private void print(String form, Object results) throws Exception {
    if (results instanceof float[] vector) {
      for (float value : vector) {
        printed.append(form).append(' ').append(value).append('\n');
      }
    } else if (results instanceof List<?> list) {
      for (Object one : list) {
        printed.append(form);
        for (String name : new String[] {"Label", "Name", "Index", "Score", "X", "Y", "Left", "Top", "Right", "Bottom"}) {
          try {
            Object value = call(one.getClass().getMethod("get" + name), one);
            printed.append(' ').append(value);
          } catch (NoSuchMethodException error) {
            continue;
          }
        }
        printed.append('\n');
      }
    } else {
      Files.write(folder.resolve(form), (byte[]) call(results.getClass().getMethod("getMask"), results));
      print(form, call(results.getClass().getMethod("shares"), results));
    }
  }

  private static Object call(Method method, Object object, Object... arguments) throws Exception {
    try {
      return method.invoke(object, arguments);
    } catch (InvocationTargetException error) {
      throw error.getCause() instanceof Exception cause ? cause : error;
    }
  }
}
