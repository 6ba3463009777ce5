package com.example.tinymodel20

import android.content.res.AssetManager
import org.tensorflow.lite.Delegate
import org.tensorflow.lite.Interpreter
import java.io.FileInputStream
import java.io.FileNotFoundException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import java.util.concurrent.Callable
import java.util.concurrent.ExecutionException
import java.util.concurrent.Executors

/**
 * How the model runs.
 *
 * @property accelerator `HTP`, `DSP`, `GPU` or `CPU`.
 * @property reasons Why each better choice failed, in order; empty when the first choice is used.
 */
class ModelStatus internal constructor(
    val accelerator: String,
    val reasons: List<String>,
)

/** One way to run the model; [open] throws when the device does not support it. */
internal class Attempt(
    val accelerator: String,
    val open: () -> Delegate,
)

/** One loaded model. Tries the attempts in order and falls back to the CPU. */
internal class ModelRunner(
    private val model: ByteBuffer,
    private val inputs: List<TensorSpec>,
    private val outputs: List<TensorSpec>,
    private val attempts: List<Attempt>,
    private val threads: Int,
) : AutoCloseable {
    // A GPU delegate must be created, run and closed on one thread; other accelerators allow any thread.
    private val executor = Executors.newSingleThreadExecutor { task -> Thread(task, "model-runner").apply { isDaemon = true } }
    private val inputBuffers = inputs.map { directBuffer(it.bytes) }
    private val outputBuffers = outputs.map { directBuffer(it.bytes) }
    private var delegate: Delegate? = null
    private var interpreter: Interpreter? = null
    val status: ModelStatus

    init {
        var ready = false
        try {
            status = onThread { open() }
            ready = true
        } finally {
            if (!ready) executor.shutdown()
        }
    }

    /** Fills the inputs, runs the model and reads the outputs, all on the model's own thread. */
    fun <T> run(
        write: (List<ByteBuffer>) -> Unit,
        read: (List<ByteBuffer>) -> T,
    ): T =
        onThread {
            val live = live()
            inputBuffers.forEach { rewind(it) }
            write(inputBuffers)
            invoke(live)
            outputBuffers.forEach { rewind(it) }
            read(outputBuffers)
        }

    /** Fills the inputs once and returns the duration of each of [runs] runs in nanoseconds. */
    fun time(
        runs: Int,
        write: (List<ByteBuffer>) -> Unit,
    ): List<Long> =
        onThread {
            val live = live()
            inputBuffers.forEach { rewind(it) }
            write(inputBuffers)
            repeat(WARM_UPS) { invoke(live) }
            List(runs) {
                val start = System.nanoTime()
                invoke(live)
                System.nanoTime() - start
            }
        }

    /** Resets the state of a stateful model. */
    fun reset() = onThread { live().resetVariableTensors() }

    override fun close() {
        if (executor.isShutdown) return
        onThread {
            interpreter?.close()
            interpreter = null
            delegate?.close()
            delegate = null
        }
        executor.shutdown()
    }

    private fun open(): ModelStatus {
        val reasons = mutableListOf<String>()
        for (attempt in attempts) {
            var candidate: Delegate? = null
            val failure: Throwable =
                try {
                    candidate = attempt.open()
                    interpreter = Interpreter(model, Interpreter.Options().setNumThreads(threads).addDelegate(candidate))
                    delegate = candidate
                    return ModelStatus(attempt.accelerator, reasons)
                } catch (error: RuntimeException) {
                    error
                } catch (error: LinkageError) {
                    // This device lacks a native library.
                    error
                }
            candidate?.close()
            reasons += attempt.accelerator + ": " + (failure.message ?: failure.javaClass.simpleName)
        }
        interpreter = Interpreter(model, Interpreter.Options().setNumThreads(threads))
        return ModelStatus("CPU", reasons)
    }

    private fun invoke(live: Interpreter) {
        inputBuffers.forEach { rewind(it) }
        outputBuffers.forEach { rewind(it) }
        live.runForMultipleInputsOutputs(
            inputBuffers.toTypedArray<Any>(),
            outputBuffers.withIndex().associate<IndexedValue<ByteBuffer>, Int, Any> { it.index to it.value },
        )
    }

    private fun live(): Interpreter = checkNotNull(interpreter) { "the model is closed" }

    private fun <T> onThread(block: () -> T): T {
        check(!executor.isShutdown) { "the model is closed" }
        try {
            return executor.submit(Callable { block() }).get()
        } catch (error: ExecutionException) {
            throw error.cause ?: error
        }
    }

    private companion object {
        const val WARM_UPS = 3
    }
}

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

private fun directBuffer(size: Int): ByteBuffer = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())
