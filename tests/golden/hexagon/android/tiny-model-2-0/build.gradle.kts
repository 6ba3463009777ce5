import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android")
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

    packaging {
        jniLibs {
            // The DSP loads its library from a file, so native libraries must be extracted.
            useLegacyPackaging = true
        }
    }
}

kotlin {
    compilerOptions {
        // No toolchain: the module builds with the JDK of the app.
        jvmTarget = JvmTarget.JVM_17
    }
}

dependencies {
    // The runtime; it also loads on devices with 16 KB pages.
    implementation("com.google.ai.edge.litert:litert:1.4.0")
    // The GPU delegate.
    implementation("com.google.ai.edge.litert:litert-gpu:1.4.0")
    // The GPU delegate's options.
    implementation("com.google.ai.edge.litert:litert-gpu-api:1.4.0")
    // Qualcomm's libraries for HTP and DSP.
    implementation("com.qualcomm.qti:qnn-runtime:2.42.0")
    // The delegate that calls them.
    implementation("com.qualcomm.qti:qnn-litert-delegate:2.42.0")
}
