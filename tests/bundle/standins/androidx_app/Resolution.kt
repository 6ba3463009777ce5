package androidx.camera.core.resolutionselector

class AspectRatioStrategy private constructor() {
    companion object {
        @JvmField val RATIO_4_3_FALLBACK_AUTO_STRATEGY = AspectRatioStrategy()
    }
}

class ResolutionSelector private constructor() {
    class Builder {
        fun setAspectRatioStrategy(strategy: AspectRatioStrategy): Builder = error("$strategy")

        fun build() = ResolutionSelector()
    }
}
