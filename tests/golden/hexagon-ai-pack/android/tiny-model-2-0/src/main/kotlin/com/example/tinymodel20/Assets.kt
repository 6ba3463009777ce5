package com.example.tinymodel20

import android.content.res.AssetManager
import java.io.FileInputStream
import java.io.FileNotFoundException
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel

/** Maps an asset into memory; an asset that the app's build compressed is copied. */
internal fun loadAsset(
    assets: AssetManager,
    path: String,
): ByteBuffer =
    try {
        assets.openFd(path).use { file ->
            FileInputStream(file.fileDescriptor).channel.map(FileChannel.MapMode.READ_ONLY, file.startOffset, file.declaredLength)
        }
    } catch (_: FileNotFoundException) {
        readAsset(assets, path)
    }

/** Reads an asset into a direct buffer. */
internal fun readAsset(
    assets: AssetManager,
    path: String,
): ByteBuffer {
    val bytes = assets.open(path).use { it.readBytes() }
    val buffer = directBuffer(bytes.size)
    buffer.put(bytes)
    rewind(buffer)
    return buffer
}

internal fun directBuffer(size: Int): ByteBuffer = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())

/** Rewinds a buffer. The parameter's type selects a method that exists in every Android version. */
internal fun rewind(buffer: Buffer) {
    buffer.rewind()
}
