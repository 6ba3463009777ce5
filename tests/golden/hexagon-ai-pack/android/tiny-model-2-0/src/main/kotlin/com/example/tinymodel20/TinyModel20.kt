package com.example.tinymodel20

import android.content.Context
import com.qualcomm.qti.QnnDelegate
import org.tensorflow.lite.Delegate
import org.tensorflow.lite.gpu.CompatibilityList
import org.tensorflow.lite.gpu.GpuDelegate
import java.nio.ByteBuffer

/**
 * Tiny Model 2.0, made by edgepack for Qualcomm Hexagon.
 *
 * Loading takes a while and running blocks: do both off the main thread.
 *
 * @param context Gives access to the model in the assets.
 * @param threads Threads of the CPU kernels.
 */
class TinyModel20(
    context: Context,
    threads: Int,
) : AutoCloseable {
    private val assets = context.assets
    private val runner =
        ModelRunner(
            loadAsset(assets, "tiny_model_2_0/tiny.tflite"),
            INPUTS,
            OUTPUTS,
            listOf(
                Attempt("HTP") {
                    openQnn(context, QnnDelegate.Capability.HTP_RUNTIME_QUANTIZED, QnnDelegate.Options.BackendType.HTP_BACKEND)
                },
                Attempt("DSP") {
                    openQnn(context, QnnDelegate.Capability.DSP_RUNTIME, QnnDelegate.Options.BackendType.DSP_BACKEND)
                },
                Attempt("GPU") { openGpu() },
            ),
            threads,
        )
    private val scoresLabels: List<String> by lazy { readLabels("tiny_model_2_0/labels_0.txt") }

    /** What runs the model, and why not something better. */
    val status: ModelStatus get() = runner.status

    /** Loads the model with four threads for the CPU kernels. */
    constructor(context: Context) : this(context, 4)

    /**
     * Runs the model on real values.
     *
     * @param myImage 12 values, shape (1, 2, 2, 3).
     * @param classValue 4 values, shape (1, 4).
     */
    fun run(
        myImage: FloatArray,
        classValue: FloatArray,
    ): Result =
        runner.run(
            { inputs ->
                INPUTS[0].write(myImage, inputs[0])
                INPUTS[1].write(classValue, inputs[1])
            },
            { outputs ->
                Result(
                    OUTPUTS[0].readFloatArray(outputs[0]),
                    OUTPUTS[1].readFloatArray(outputs[1]),
                    OUTPUTS[2].readLongArray(outputs[2]),
                    mapOf("scores" to scoresLabels),
                )
            },
        )

    /** Forgets the state of a model that has one, so that the next run is like the first. */
    fun reset() = runner.reset()

    /** Runs the golden vectors that came with the model and returns how far the results are from the expected ones. */
    fun selfTest(): List<GoldenDifference> {
        val cpu = status.accelerator == "CPU"
        return (0 until 1).flatMap { case ->
            runner.reset()
            runner.run(
                { buffers -> putGolden(case, buffers) },
                { buffers ->
                    buffers.mapIndexed { index, actual ->
                        val tensor = OUTPUTS[index]
                        val expected = golden(case, "output", index)
                        val allowed =
                            when {
                                tensor.type == TensorSpec.Type.FLOAT32 ->
                                    tensor.largestMagnitude(expected) * (if (cpu) 0.0001 else 0.02)
                                tensor.scale == 0f -> 0.0
                                else -> if (cpu) 1.0 else 5.0
                            }
                        GoldenDifference(case, tensor.name, tensor.largestDifference(expected, actual), allowed)
                    }
                },
            )
        }
    }

    /** Times some runs on a golden vector, after some that do not count. */
    @JvmOverloads
    fun benchmark(runs: Int = 50): Benchmark {
        require(runs > 0) { "runs: expected at least 1, got $runs" }
        runner.reset()
        val times = runner.time(runs) { buffers -> putGolden(0, buffers) }
        runner.reset()
        return Benchmark(status.accelerator, times)
    }

    override fun close() = runner.close()

    private fun putGolden(
        case: Int,
        buffers: List<ByteBuffer>,
    ) = buffers.forEachIndexed { index, buffer -> buffer.put(golden(case, "input", index)) }

    private fun golden(
        case: Int,
        kind: String,
        index: Int,
    ) = readAsset(assets, "tiny_model_2_0/golden/case_" + case + "/" + kind + "_" + index + ".bin")

    private fun readLabels(path: String): List<String> = assets.open(path).bufferedReader().use { it.readLines() }

    /**
     * Outputs of one run.
     *
     * @property scores 3 values, shape (1, 3).
     * @property output2ndOutput 2 values, shape (1, 2).
     * @property scores2 1 values, shape ().
     */
    class Result internal constructor(
        val scores: FloatArray,
        val output2ndOutput: FloatArray,
        val scores2: LongArray,
        private val labels: Map<String, List<String>>,
    ) {
        /**
         * Returns the [k] labels with the highest values, best first.
         *
         * @param output Which output, one of scores.
         */
        @JvmOverloads
        fun topK(
            k: Int = 5,
            output: String = "scores",
        ): List<Label> {
            val names = requireNotNull(labels[output]) { "output: expected one of ${labels.keys}, got $output" }
            val values =
                when (output) {
                    "scores" -> this.scores
                    else -> FloatArray(0)
                }
            return names.zip(values.asIterable()) { text, score -> Label(text, score) }.sortedByDescending { it.score }.take(k)
        }
    }

    companion object {
        private val INPUTS =
            listOf(
                TensorSpec("My image", TensorSpec.Type.INT8, 12, 0.0078125f, -1),
                TensorSpec("class", TensorSpec.Type.FLOAT32, 4),
            )
        private val OUTPUTS =
            listOf(
                TensorSpec("scores", TensorSpec.Type.UINT8, 3, 0.00390625f, 0),
                TensorSpec("2nd-output", TensorSpec.Type.FLOAT32, 2),
                TensorSpec("scores", TensorSpec.Type.INT64, 1),
            )

        private fun openGpu(): Delegate =
            CompatibilityList().use { devices ->
                check(devices.isDelegateSupportedOnThisDevice) { "this device is not on the GPU delegate's list" }
                GpuDelegate(devices.bestOptionsForThisDevice)
            }

        private fun openQnn(
            context: Context,
            capability: QnnDelegate.Capability,
            backend: QnnDelegate.Options.BackendType,
        ): Delegate {
            check(QnnDelegate.checkCapability(capability)) { "this device has no $capability" }
            val options = QnnDelegate.Options()
            options.setBackendType(backend)
            options.setSkelLibraryDir(context.applicationInfo.nativeLibraryDir)
            // What the first load prepared serves the following ones.
            options.setCacheDir(context.codeCacheDir.absolutePath)
            options.setModelToken("ec6fae10da2d95670e4ed846d3cc856b")
            return QnnDelegate(options)
        }
    }
}

/** A label and its value. */
class Label internal constructor(
    val text: String,
    val score: Float,
)

/**
 * One output of one golden case, compared.
 *
 * @property largest Largest absolute difference of the raw values: steps for integers, absolute for floats.
 * @property allowed What is allowed on what ran the model.
 */
class GoldenDifference internal constructor(
    val case: Int,
    val output: String,
    val largest: Double,
    val allowed: Double,
) {
    /** True when the difference is allowed. */
    val ok: Boolean get() = largest <= allowed
}

/**
 * Times of runs on this device, without filling inputs and reading outputs.
 *
 * @property accelerator What ran the model.
 */
class Benchmark internal constructor(
    val accelerator: String,
    nanoseconds: List<Long>,
) {
    private val sorted = nanoseconds.sorted()

    /** How many runs were timed. */
    val runs: Int get() = sorted.size

    /** The time that half of the runs stayed within, in milliseconds. */
    val medianMillis: Double get() = within(50)

    /** The time that nine of ten runs stayed within, in milliseconds. */
    val p90Millis: Double get() = within(90)

    private fun within(percent: Int): Double = sorted[(sorted.size * percent + 99) / 100 - 1] / 1e6
}
