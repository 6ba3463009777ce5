/** Stand-ins for CameraX, whose artifacts (Google's Maven repository) cannot be had here. */
package androidx.camera.core

import android.graphics.Rect
import androidx.camera.core.resolutionselector.ResolutionSelector
import java.nio.ByteBuffer
import java.util.concurrent.Executor

abstract class UseCase

class CameraSelector private constructor() {
    companion object {
        @JvmField val DEFAULT_BACK_CAMERA = CameraSelector()
    }
}

interface ImageInfo {
    val rotationDegrees: Int
}

interface ImageProxy : AutoCloseable {
    interface PlaneProxy {
        val rowStride: Int
        val pixelStride: Int
        val buffer: ByteBuffer
    }

    val planes: Array<PlaneProxy>
    val imageInfo: ImageInfo
    val cropRect: Rect
    val width: Int
    val height: Int
}

class ImageAnalysis private constructor() : UseCase() {
    fun interface Analyzer {
        fun analyze(image: ImageProxy)
    }

    fun setAnalyzer(
        executor: Executor,
        analyzer: Analyzer,
    ): Unit = error("$executor $analyzer")

    class Builder {
        fun setResolutionSelector(selector: ResolutionSelector): Builder = error("$selector")

        fun setBackpressureStrategy(strategy: Int): Builder = error("$strategy")

        fun build() = ImageAnalysis()
    }

    companion object {
        const val STRATEGY_KEEP_ONLY_LATEST = 0
    }
}

class Preview private constructor() : UseCase() {
    fun interface SurfaceProvider {
        fun onSurfaceRequested(request: Any)
    }

    fun setSurfaceProvider(provider: SurfaceProvider?): Unit = error("$provider")

    class Builder {
        fun setResolutionSelector(selector: ResolutionSelector): Builder = error("$selector")

        fun build() = Preview()
    }
}
