plugins {
    id("com.android.library")
}

// A value of the app's gradle.properties or of -P, such as edgepack.minSdk=26, or the module's own.
fun setting(
    name: String,
    default: String,
): String = findProperty("edgepack.$name")?.toString() ?: default

val litertVersion = setting("litert", "1.4.2")

android {
    namespace = "com.example.tinymodel20"
    compileSdk = setting("compileSdk", "36").toInt()

    defaultConfig {
        minSdk = setting("minSdk", "24").toInt()
        consumerProguardFiles("consumer-rules.pro")
        // Runs the JUnit tests, and replays the golden vectors for `edgepack verify --device`.
        testApplicationId = "com.example.tinymodel20.test"
        testInstrumentationRunner = "com.example.tinymodel20.SelfTest"
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    androidResources {
        // A compressed asset cannot be mapped into memory.
        noCompress += "tflite"
    }
}

dependencies {
    // The runtime; it also loads on devices with 16 KB pages.
    implementation("com.google.ai.edge.litert:litert:$litertVersion")

    androidTestImplementation("junit:junit:4.13.2")
    androidTestImplementation("androidx.test:runner:1.7.0")
}
