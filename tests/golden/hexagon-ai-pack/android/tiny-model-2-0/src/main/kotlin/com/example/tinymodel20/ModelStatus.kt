package com.example.tinymodel20

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
