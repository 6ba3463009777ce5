package com.example.tinymodel20

import androidx.test.platform.app.InstrumentationRegistry
import org.junit.Assert.assertTrue
import org.junit.Test

/** The model computes on this device what it computed when it was built. */
class GoldenVectorsTest {
    @Test
    fun outputsAreTheGoldenOnes() {
        TinyModel20(InstrumentationRegistry.getInstrumentation().targetContext).use { model ->
            for (difference in model.selfTest()) {
                val place = "case ${difference.case}, ${difference.output}, on ${model.status.accelerator}"
                assertTrue("$place: ${difference.largest} exceeds ${difference.allowed}", difference.ok)
            }
        }
    }
}
