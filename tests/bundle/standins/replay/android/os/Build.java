package android.os;

/** Stand-in whose chip the test sets. */
public class Build {
  public static String SOC_MODEL = System.getProperty("replay.soc", "unknown");

  /** Version. */
  public static class VERSION {
    public static int SDK_INT = Integer.getInteger("replay.sdk", 34);
  }

  /** Versions. */
  public static class VERSION_CODES {
    public static final int S = 31;
  }
}
