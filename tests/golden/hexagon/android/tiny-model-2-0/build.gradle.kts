import org.jetbrains.kotlin.gradle.dsl.JvmTarget
import org.jetbrains.kotlin.gradle.tasks.KotlinJvmCompile

plugins {
    id("com.android.library")
}

// From version 9 on, the Android Gradle Plugin compiles Kotlin itself; before, the app's Kotlin plugin does.
if (extensions.findByName("kotlin") == null) {
    apply(plugin = "org.jetbrains.kotlin.android")
}

// A value of the app's gradle.properties or of -P, such as edgepack.minSdk=26, or the module's own.
fun setting(
    name: String,
    default: String,
): String = findProperty("edgepack.$name")?.toString() ?: default

val litertVersion = setting("litert", "1.4.2")
val qnnVersion = setting("qnn", "2.42.0")

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

    packaging {
        jniLibs {
            // The DSP loads its library from a file, so native libraries must be extracted.
            useLegacyPackaging = true
        }
    }
}

tasks.withType<KotlinJvmCompile>().configureEach {
    // No toolchain: the module builds with the JDK of the app.
    compilerOptions.jvmTarget.set(JvmTarget.JVM_17)
}

dependencies {
    // The runtime; it also loads on devices with 16 KB pages.
    implementation("com.google.ai.edge.litert:litert:$litertVersion")
    // The GPU delegate.
    implementation("com.google.ai.edge.litert:litert-gpu:$litertVersion")
    // The GPU delegate's options.
    implementation("com.google.ai.edge.litert:litert-gpu-api:$litertVersion")
    // Qualcomm's libraries for HTP and DSP.
    implementation("com.qualcomm.qti:qnn-runtime:$qnnVersion")
    // The delegate that calls them.
    implementation("com.qualcomm.qti:qnn-litert-delegate:$qnnVersion")

    androidTestImplementation("junit:junit:4.13.2")
    androidTestImplementation("androidx.test:runner:1.7.0")
}
