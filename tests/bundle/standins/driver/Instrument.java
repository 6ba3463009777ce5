import android.app.Instrumentation;
import android.os.Bundle;

/** Starts a generated self-test as {@code am instrument -w -r -e KEY VALUE CLASS} does. Arguments: class, key, value. */
public final class Instrument {
  public static void main(String[] arguments) throws Exception {
    Bundle given = new Bundle();
    given.putString(arguments[1], arguments[2]);
    ((Instrumentation) Class.forName(arguments[0]).getConstructor().newInstance()).onCreate(given);
  }
}
