package com.example.tinymodel20

import android.app.Activity
import android.os.Bundle
import androidx.test.runner.AndroidJUnitRunner
import org.json.JSONArray
import org.json.JSONObject
import java.security.MessageDigest

/**
 * Runs the module's JUnit tests. With the argument `runs`, replays the golden vectors on the device and times runs instead:
 * `adb shell am instrument -w -r -e runs 50 com.example.tinymodel20.test/com.example.tinymodel20.SelfTest`.
 *
 * The result is one line of JSON under the key `edgepack`, or an error message under `error`; `edgepack verify --device` reads it.
 */
class SelfTest : AndroidJUnitRunner() {
    private var runs = 0

    override fun onCreate(arguments: Bundle?) {
        runs = arguments?.getString("runs")?.toInt() ?: runs
        super.onCreate(arguments)
    }

    override fun onStart() {
        if (runs == 0) {
            super.onStart()
            return
        }
        val results = Bundle()
        try {
            results.putString("edgepack", report().toString())
        } catch (error: Exception) {
            results.putString("error", error.toString())
        } catch (error: LinkageError) {
            // The runtime has no native library for this device.
            results.putString("error", error.toString())
        }
        finish(if (results.containsKey("edgepack")) Activity.RESULT_OK else Activity.RESULT_CANCELED, results)
    }

    private fun report(): JSONObject =
        TinyModel20(targetContext).use { model ->
            val differences = JSONArray()
            for (difference in model.selfTest()) {
                val entry = JSONObject().put("case", difference.case).put("output", difference.output)
                entry.put("allowed", difference.allowed)
                // JSON has no infinity.
                entry.put("largest", if (difference.largest.isInfinite()) JSONObject.NULL else difference.largest)
                differences.put(entry)
            }
            val times = model.benchmark(runs)
            JSONObject()
                .put("model_sha256", modelDigest())
                .put("accelerator", model.status.accelerator)
                .put("reasons", JSONArray(model.status.reasons))
                .put("differences", differences)
                .put("runs", times.runs)
                .put("median_ms", times.medianMillis)
                .put("p90_ms", times.p90Millis)
        }

    private fun modelDigest(): String {
        val bytes = targetContext.assets.open("tiny_model_2_0/tiny.tflite").use { it.readBytes() }
        return MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }
    }
}
