// Plugins for building this folder on its own; inside an app, the app's plugins apply.
plugins {
    alias(libs.plugins.android.library) apply false
}
