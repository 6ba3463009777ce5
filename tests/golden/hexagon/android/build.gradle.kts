// Versions for building this folder on its own; inside an app, the app's versions apply.
plugins {
    id("com.android.library") version "8.10.1" apply false
    id("org.jetbrains.kotlin.android") version "2.1.21" apply false
}
