// Plugins for building this folder on its own; inside an app, the app's plugins apply.
plugins {
    alias(libs.plugins.android.library) apply false
    // Applied under version 8 of the Android Gradle Plugin only.
    alias(libs.plugins.kotlin.android) apply false
}
