package com.example.tinymodel20

import java.nio.ByteBuffer
import kotlin.math.abs
import kotlin.math.round

/** An input or output of the model. Real values are `scale * (raw - zeroPoint)`; with a scale of 0 they equal the raw ones. */
internal class TensorSpec(
    val name: String,
    val type: Type,
    val elements: Int,
    val scale: Float = 0f,
    val zeroPoint: Int = 0,
) {
    enum class Type(
        val bytes: Int,
        val lowest: Int = 0,
        val highest: Int = 0,
    ) {
        FLOAT32(4),
        INT8(1, -128, 127),
        UINT8(1, 0, 255),
        INT16(2, -32768, 32767),
        INT32(4),
        INT64(8),
        BOOL(1),
    }

    val bytes: Int get() = elements * type.bytes

    // The runtime multiplies by the reciprocal; a division would sometimes round differently.
    private val inverseScale = 1f / scale

    /** Rounds halves to even and saturates, bit for bit like QUANTIZE in the runtime's default kernels. */
    fun quantize(real: Float): Int {
        require(!real.isNaN()) { "$name: expected numbers, got NaN" }
        val lowest = (type.lowest - zeroPoint - 1).toFloat()
        val highest = (type.highest - zeroPoint + 1).toFloat()
        val scaled = round((real * inverseScale).coerceIn(lowest, highest))
        return (scaled.toInt() + zeroPoint).coerceIn(type.lowest, type.highest)
    }

    fun dequantize(raw: Int): Float = (scale.toDouble() * (raw - zeroPoint)).toFloat()

    fun write(
        values: FloatArray,
        buffer: ByteBuffer,
    ) {
        checkSize(values.size)
        for (value in values) {
            when (type) {
                Type.INT8, Type.UINT8 -> buffer.put(quantize(value).toByte())
                Type.INT16 -> buffer.putShort(quantize(value).toShort())
                else -> buffer.putFloat(value)
            }
        }
    }

    fun write(
        values: ByteArray,
        buffer: ByteBuffer,
    ) {
        checkSize(values.size)
        buffer.put(values)
    }

    fun write(
        values: ShortArray,
        buffer: ByteBuffer,
    ) {
        checkSize(values.size)
        values.forEach { buffer.putShort(it) }
    }

    fun write(
        values: IntArray,
        buffer: ByteBuffer,
    ) {
        checkSize(values.size)
        values.forEach { buffer.putInt(it) }
    }

    fun write(
        values: LongArray,
        buffer: ByteBuffer,
    ) {
        checkSize(values.size)
        values.forEach { buffer.putLong(it) }
    }

    fun write(
        values: BooleanArray,
        buffer: ByteBuffer,
    ) {
        checkSize(values.size)
        values.forEach { buffer.put(if (it) 1.toByte() else 0.toByte()) }
    }

    fun readFloatArray(buffer: ByteBuffer): FloatArray =
        FloatArray(elements) { if (scale == 0f) buffer.getFloat(it * type.bytes) else dequantize(readInt(buffer, it)) }

    fun readByteArray(buffer: ByteBuffer): ByteArray = ByteArray(elements) { buffer.get(it) }

    fun readShortArray(buffer: ByteBuffer): ShortArray = ShortArray(elements) { buffer.getShort(it * type.bytes) }

    fun readIntArray(buffer: ByteBuffer): IntArray = IntArray(elements) { buffer.getInt(it * type.bytes) }

    fun readLongArray(buffer: ByteBuffer): LongArray = LongArray(elements) { buffer.getLong(it * type.bytes) }

    fun readBooleanArray(buffer: ByteBuffer): BooleanArray = BooleanArray(elements) { buffer.get(it) != 0.toByte() }

    /** Largest absolute difference of two raw tensors, in scale steps for integers. */
    fun largestDifference(
        expected: ByteBuffer,
        actual: ByteBuffer,
    ): Double {
        var largest = 0.0
        for (index in 0 until elements) {
            val one = number(expected, index)
            val other = number(actual, index)
            val same = one == other || (one.isNaN() && other.isNaN())
            val difference = if (same) 0.0 else abs(one - other)
            if (difference.isNaN()) return Double.POSITIVE_INFINITY
            largest = maxOf(largest, difference)
        }
        return largest
    }

    /** Largest finite magnitude of a raw tensor. */
    fun largestMagnitude(buffer: ByteBuffer): Double =
        (0 until elements).maxOfOrNull { index -> abs(number(buffer, index)).takeIf { it.isFinite() } ?: 0.0 } ?: 0.0

    private fun number(
        buffer: ByteBuffer,
        index: Int,
    ): Double =
        when (type) {
            Type.FLOAT32 -> buffer.getFloat(index * type.bytes).toDouble()
            Type.INT32 -> buffer.getInt(index * type.bytes).toDouble()
            Type.INT64 -> buffer.getLong(index * type.bytes).toDouble()
            else -> readInt(buffer, index).toDouble()
        }

    private fun readInt(
        buffer: ByteBuffer,
        index: Int,
    ): Int =
        when (type) {
            Type.UINT8 -> buffer.get(index).toInt() and 0xFF
            Type.INT16 -> buffer.getShort(index * type.bytes).toInt()
            else -> buffer.get(index).toInt()
        }

    private fun checkSize(size: Int) {
        require(size == elements) { "$name: expected $elements values, got $size" }
    }
}
