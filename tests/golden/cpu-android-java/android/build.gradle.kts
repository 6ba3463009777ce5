// Versions for building this folder on its own; inside an app, the app's versions apply.
plugins {
    id("com.android.library") version "8.10.1" apply false
}
