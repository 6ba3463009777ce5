package com.example.tinymodel20;

import android.content.res.AssetFileDescriptor;
import android.content.res.AssetManager;
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;

/** Reads the files of the model. */
final class Assets {
  private Assets() {}

  /** Maps an asset into memory; an asset that the app's build compressed is copied. */
  static ByteBuffer load(AssetManager assets, String path) {
    try (AssetFileDescriptor file = assets.openFd(path);
        FileInputStream stream = new FileInputStream(file.getFileDescriptor())) {
      return stream
          .getChannel()
          .map(FileChannel.MapMode.READ_ONLY, file.getStartOffset(), file.getDeclaredLength());
    } catch (FileNotFoundException compressed) {
      return read(assets, path);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  /** Reads an asset into a direct buffer. */
  static ByteBuffer read(AssetManager assets, String path) {
    byte[] bytes = bytes(assets, path);
    ByteBuffer buffer = directBuffer(bytes.length);
    buffer.put(bytes);
    rewind(buffer);
    return buffer;
  }

  /** Reads an asset's lines, including empty ones; each ends with a line break. */
  static List<String> lines(AssetManager assets, String path) {
    String text = new String(bytes(assets, path), StandardCharsets.UTF_8);
    List<String> lines = Arrays.asList(text.split("\n", -1));
    return lines.subList(0, lines.size() - 1);
  }

  static ByteBuffer directBuffer(int size) {
    return ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder());
  }

  /**
   * Rewinds a buffer. The parameter's type selects a method that exists in every Android version.
   */
  static void rewind(Buffer buffer) {
    buffer.rewind();
  }

  private static byte[] bytes(AssetManager assets, String path) {
    try (InputStream stream = assets.open(path)) {
      ByteArrayOutputStream bytes = new ByteArrayOutputStream();
      byte[] block = new byte[1 << 16];
      for (int count = stream.read(block); count >= 0; count = stream.read(block)) {
        bytes.write(block, 0, count);
      }
      return bytes.toByteArray();
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
