import android.app.Instrumentation;
import android.os.Bundle;

/** Starts a generated self-test as {@code am instrument -w -r -e runs N CLASS} does. Arguments: the class, then N. */
public final class Instrument {
  public static void main(String[] arguments) throws Exception {
    Bundle given = new Bundle();
    given.putString("runs", arguments[1]);
    ((Instrumentation) Class.forName(arguments[0]).getConstructor().newInstance()).onCreate(given);
  }
}
