package android.content.res;

import java.io.Closeable;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

/** Stand-in: a region of a file. */
public class AssetFileDescriptor implements Closeable {
  private final FileInputStream stream;
  private final long offset;
  private final long length;

  AssetFileDescriptor(String path, long offset, long length) throws IOException {
    this.stream = new FileInputStream(path);
    this.offset = offset;
    this.length = length;
  }

  public FileDescriptor getFileDescriptor() {
    try {
      return stream.getFD();
    } catch (IOException error) {
      throw new IllegalStateException(error);
    }
  }

  public long getStartOffset() {
    return offset;
  }

  public long getDeclaredLength() {
    return length;
  }

  @Override
  public void close() throws IOException {
    stream.close();
  }

  /** Returns where an entry's data starts: behind its local header, whose name and extra field have their own lengths. */
  static long offset(String path, String name) throws IOException {
    ByteBuffer archive = ByteBuffer.wrap(Files.readAllBytes(Path.of(path))).order(ByteOrder.LITTLE_ENDIAN);
    byte[] wanted = name.getBytes(StandardCharsets.UTF_8);
    for (int at = 0; archive.getInt(at) == 0x04034b50; ) {
      int nameLength = archive.getShort(at + 26);
      byte[] found = new byte[nameLength];
      archive.get(at + 30, found);
      int data = at + 30 + nameLength + archive.getShort(at + 28);
      if (Arrays.equals(found, wanted)) {
        return data;
      }
      at = data + archive.getInt(at + 18);
    }
    throw new IOException(name + " is not in " + path);
  }
}
