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
    }

    androidResources {
        // A compressed asset cannot be mapped into memory.
        noCompress += "tflite"
    }

    packaging {
        jniLibs {
            // The DSP loads its library from a file, so native libraries have to be extracted.
            useLegacyPackaging = true
        }
    }
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    // The last version under this name; its libraries have 4 KB pages. LiteRT 1.x (com.google.ai.edge.litert:litert and
    // litert-gpu) continues it with the same classes.
    implementation("org.tensorflow:tensorflow-lite:2.16.1")
    implementation("org.tensorflow:tensorflow-lite-gpu:2.16.1")
    // Holds the class of the GPU delegate's options; without it the delegate fails at run time.
    implementation("org.tensorflow:tensorflow-lite-gpu-api:2.14.0")
    implementation("com.qualcomm.qti:qnn-runtime:2.42.0")
    implementation("com.qualcomm.qti:qnn-litert-delegate:2.42.0")
}
