package android.os;

import java.util.Map;
import java.util.TreeMap;

/** Stand-in with what the self-test calls. */
public final class Bundle {
  public final Map<String, String> values = new TreeMap<>();

  public void putString(String key, String value) {
    values.put(key, value);
  }

  public String getString(String key) {
    return values.get(key);
  }

  public boolean containsKey(String key) {
    return values.containsKey(key);
  }
}
