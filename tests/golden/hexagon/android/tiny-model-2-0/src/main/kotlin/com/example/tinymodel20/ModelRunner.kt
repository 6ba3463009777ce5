package com.example.tinymodel20

import java.nio.ByteBuffer
import java.util.concurrent.Callable
import java.util.concurrent.ExecutionException
import java.util.concurrent.Executors

/** A model that is open on one accelerator. */
internal interface Engine : AutoCloseable {
    /** Raw values of the inputs, in the model's order. */
    val inputs: List<ByteBuffer>

    /** Raw values of the outputs, in the model's order. */
    val outputs: List<ByteBuffer>

    /** Gives [inputs] to the runtime. */
    fun writeInputs()

    fun invoke()

    /** Fills [outputs] with the results. */
    fun readOutputs()

    /** Resets the state of a stateful model. */
    fun reset()
}

/** One way to run the model; [open] throws when the device does not support it. */
internal class Attempt(
    val accelerator: String,
    val open: () -> Engine,
)

/** One loaded model, open with the first attempt that succeeds. */
internal class ModelRunner(
    private val attempts: List<Attempt>,
) : AutoCloseable {
    // A GPU delegate must be created, run and closed on one thread; other accelerators allow any thread.
    private val executor = Executors.newSingleThreadExecutor { task -> Thread(task, "model-runner").apply { isDaemon = true } }
    private var engine: Engine? = null
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
            fill(live, write)
            live.invoke()
            live.outputs.forEach { rewind(it) }
            live.readOutputs()
            read(live.outputs)
        }

    /** Fills the inputs once and returns the duration of each of [runs] runs in nanoseconds. */
    fun time(
        runs: Int,
        write: (List<ByteBuffer>) -> Unit,
    ): List<Long> =
        onThread {
            val live = live()
            fill(live, write)
            repeat(WARM_UPS) { live.invoke() }
            List(runs) {
                val start = System.nanoTime()
                live.invoke()
                System.nanoTime() - start
            }
        }

    /** Resets the state of a stateful model. */
    fun reset() = onThread { live().reset() }

    override fun close() {
        if (executor.isShutdown) return
        onThread {
            engine?.close()
            engine = null
        }
        executor.shutdown()
    }

    private fun open(): ModelStatus {
        val reasons = mutableListOf<String>()
        for (attempt in attempts) {
            val failure: Throwable =
                try {
                    engine = attempt.open()
                    return ModelStatus(attempt.accelerator, reasons)
                } catch (error: Exception) {
                    error
                } catch (error: LinkageError) {
                    // This device or this app lacks a native library or a class.
                    error
                }
            reasons += attempt.accelerator + ": " + (failure.message ?: failure.javaClass.simpleName)
        }
        error("the model does not run on this device: " + reasons.joinToString("; "))
    }

    private fun fill(
        live: Engine,
        write: (List<ByteBuffer>) -> Unit,
    ) {
        live.inputs.forEach { rewind(it) }
        write(live.inputs)
        live.inputs.forEach { rewind(it) }
        live.writeInputs()
    }

    private fun live(): Engine = checkNotNull(engine) { "the model is closed" }

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
