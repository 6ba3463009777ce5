package androidx.core.content

import android.content.Context
import java.util.concurrent.Executor

class ContextCompat private constructor() {
    companion object {
        @JvmStatic
        fun getMainExecutor(context: Context): Executor = error("$context")
    }
}
