import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import javax.tools.ToolProvider;
import org.jetbrains.kotlin.cli.jvm.K2JVMCompiler;

/**
 * Runs the Kotlin and the Java compiler again and again in one JVM: a compiler that has run before is several times as
 * fast as one that starts.
 *
 * <p>Reads one call per line, `kotlin` or `java` and the arguments, separated by tabs. Answers each with a line that has
 * the exit code and the size in bytes of the compiler's messages, and with the messages.
 */
final class Compilers {
  public static void main(String[] none) throws Exception {
    PrintStream answers = System.out;
    System.setOut(System.err);
    BufferedReader calls = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String call = calls.readLine(); call != null; call = calls.readLine()) {
      String[] words = call.split("\t");
      String[] arguments = Arrays.copyOfRange(words, 1, words.length);
      ByteArrayOutputStream bytes = new ByteArrayOutputStream();
      PrintStream messages = new PrintStream(bytes, true, StandardCharsets.UTF_8);
      int code =
          words[0].equals("kotlin")
              ? new K2JVMCompiler().exec(messages, arguments).getCode()
              : ToolProvider.getSystemJavaCompiler().run(null, messages, messages, arguments);
      messages.flush();
      answers.println(code + " " + bytes.size());
      answers.write(bytes.toByteArray());
      answers.flush();
    }
  }
}
