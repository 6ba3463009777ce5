package android.content.pm;

/** Stand-in with what the loader reads. */
public class ApplicationInfo {
  public String nativeLibraryDir = "native-libraries";
}
