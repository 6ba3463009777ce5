package android.content.res;

import java.io.ByteArrayInputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;

/**
 * Stand-in that reads assets from an archive as Android does from an app (system property `replay.archive`): a stored
 * entry can be opened as a region of the archive, a compressed one cannot.
 */
public final class AssetManager {
  private final String file = System.getProperty("replay.archive");

  public AssetFileDescriptor openFd(String path) throws IOException {
    try (ZipFile archive = new ZipFile(file)) {
      ZipEntry entry = entry(archive, path);
      if (entry.getMethod() != ZipEntry.STORED) {
        throw new FileNotFoundException("This file can not be opened as a file descriptor; it is probably compressed");
      }
      return new AssetFileDescriptor(file, AssetFileDescriptor.offset(file, entry.getName()), entry.getSize());
    }
  }

  public InputStream open(String path) throws IOException {
    try (ZipFile archive = new ZipFile(file);
        InputStream stream = archive.getInputStream(entry(archive, path))) {
      return new ByteArrayInputStream(stream.readAllBytes());
    }
  }

  private static ZipEntry entry(ZipFile archive, String path) throws FileNotFoundException {
    ZipEntry entry = archive.getEntry("assets/" + path);
    if (entry == null) {
      throw new FileNotFoundException(path);
    }
    return entry;
  }
}
