plugins {
    id("com.android.library")
}

android {
    namespace = "com.example.tinymodel20"
    compileSdk = 35

    defaultConfig {
        minSdk = 24
        consumerProguardFiles("consumer-rules.pro")
        // Replays the golden vectors on a device; requires no test library.
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
    implementation("com.google.ai.edge.litert:litert:1.4.0")
}
