package android.app;

/** Stand-in with Android's constants. */
public final class Activity {
  public static final int RESULT_CANCELED = 0;
  public static final int RESULT_OK = -1;

  private Activity() {}
}
