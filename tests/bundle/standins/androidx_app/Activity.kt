/** Stand-ins for AndroidX Activity and Core, whose artifacts (Google's Maven repository) cannot be had here. */
@file:JvmName("ActivityStandIns")

package androidx.activity

import android.app.Activity
import androidx.activity.result.ActivityResultLauncher
import androidx.activity.result.contract.ActivityResultContract
import androidx.lifecycle.LifecycleOwner

fun interface ActivityResultCallback<O> {
    fun onActivityResult(result: O)
}

open class ComponentActivity :
    Activity(),
    LifecycleOwner {
    fun <I, O> registerForActivityResult(
        contract: ActivityResultContract<I, O>,
        callback: ActivityResultCallback<O>,
    ): ActivityResultLauncher<I> = error("$contract $callback")
}
