package com.example.tinymodel20

import android.content.Context
import com.qualcomm.qti.QnnDelegate
import org.tensorflow.lite.Delegate
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.gpu.CompatibilityList
import org.tensorflow.lite.gpu.GpuDelegate
import java.nio.ByteBuffer

/** Runs the model with the Interpreter of LiteRT 1. */
internal class InterpreterEngine private constructor(
    model: ByteBuffer,
    inputs: List<TensorSpec>,
    outputs: List<TensorSpec>,
    threads: Int,
    private val delegate: Delegate?,
) : Engine {
    override val inputs = inputs.map { directBuffer(it.bytes) }
    override val outputs = outputs.map { directBuffer(it.bytes) }
    private val arguments: Array<Any> = this.inputs.toTypedArray()
    private val results: Map<Int, Any> = this.outputs.withIndex().associate { it.index to it.value }
    private val interpreter =
        Interpreter(
            model,
            Interpreter.Options().setNumThreads(threads).apply { if (delegate != null) addDelegate(delegate) },
        )

    override fun writeInputs() = Unit

    override fun invoke() {
        inputs.forEach { rewind(it) }
        outputs.forEach { rewind(it) }
        interpreter.runForMultipleInputsOutputs(arguments, results)
    }

    override fun readOutputs() = Unit

    override fun reset() = interpreter.resetVariableTensors()

    override fun close() {
        interpreter.close()
        delegate?.close()
    }

    companion object {
        /** The ways to run the model, the best one first. */
        fun attempts(
            context: Context,
            threads: Int,
            inputs: List<TensorSpec>,
            outputs: List<TensorSpec>,
        ): List<Attempt> {
            val model = loadAsset(context.assets, "tiny_model_2_0/tiny.tflite")

            fun attempt(
                accelerator: String,
                openDelegate: () -> Delegate?,
            ) = Attempt(accelerator) { open(model, inputs, outputs, threads, openDelegate()) }
            return listOf(
                attempt("HTP") {
                    openQnn(context, QnnDelegate.Capability.HTP_RUNTIME_QUANTIZED, QnnDelegate.Options.BackendType.HTP_BACKEND)
                },
                attempt("DSP") {
                    openQnn(context, QnnDelegate.Capability.DSP_RUNTIME, QnnDelegate.Options.BackendType.DSP_BACKEND)
                },
                attempt("GPU") { openGpu() },
                attempt("CPU") { null },
            )
        }

        private fun open(
            model: ByteBuffer,
            inputs: List<TensorSpec>,
            outputs: List<TensorSpec>,
            threads: Int,
            delegate: Delegate?,
        ): Engine {
            var engine: Engine? = null
            try {
                return InterpreterEngine(model, inputs, outputs, threads, delegate).also { engine = it }
            } finally {
                if (engine == null) delegate?.close()
            }
        }

        private fun openGpu(): Delegate =
            CompatibilityList().use { devices ->
                check(devices.isDelegateSupportedOnThisDevice) { "the GPU delegate does not support this device" }
                GpuDelegate(devices.bestOptionsForThisDevice)
            }

        private fun openQnn(
            context: Context,
            capability: QnnDelegate.Capability,
            backend: QnnDelegate.Options.BackendType,
        ): Delegate {
            check(QnnDelegate.checkCapability(capability)) { "this device does not support $capability" }
            val options = QnnDelegate.Options()
            options.setBackendType(backend)
            options.setSkelLibraryDir(context.applicationInfo.nativeLibraryDir)
            // Later loads reuse what the first one prepared.
            options.setCacheDir(context.codeCacheDir.absolutePath)
            options.setModelToken("ec6fae10da2d95670e4ed846d3cc856b")
            return QnnDelegate(options)
        }
    }
}
