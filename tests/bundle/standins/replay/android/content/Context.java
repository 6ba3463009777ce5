package android.content;

import android.content.pm.ApplicationInfo;
import android.content.res.AssetManager;
import java.io.File;

/** Stand-in with what the loader calls. */
public class Context {
  public AssetManager getAssets() {
    return new AssetManager();
  }

  public ApplicationInfo getApplicationInfo() {
    return new ApplicationInfo();
  }

  public File getCodeCacheDir() {
    return new File("code-cache");
  }
}
