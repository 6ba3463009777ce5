/**
 * Stand-in for the part of the Android Gradle Plugin's DSL (com.android.build.api.dsl) that the generated scripts use:
 * its artifacts are on Google's Maven repository only. Names and types are those of the published reference, for the
 * versions 8 to 10. It keeps what a script sets.
 */
package com.android.build.api.dsl

import org.gradle.api.JavaVersion
import org.gradle.api.provider.Property
import java.io.File

open class DefaultConfig {
    var applicationId: String? = null
    var minSdk: Int? = null
    var targetSdk: Int? = null
    var versionCode: Int? = null
    var versionName: String? = null
    var testApplicationId: String? = null
    var testInstrumentationRunner: String? = null
    val consumerFiles = mutableListOf<Any>()

    fun consumerProguardFiles(vararg files: Any): Any = consumerFiles.addAll(files)
}

class CompileOptions {
    var sourceCompatibility = JavaVersion.VERSION_1_8
    var targetCompatibility = JavaVersion.VERSION_1_8
}

class AndroidResources {
    val noCompress: MutableCollection<String> = mutableListOf()
}

class JniLibsPackaging {
    var useLegacyPackaging: Boolean? = null
}

class Packaging {
    val jniLibs = JniLibsPackaging()

    fun jniLibs(action: JniLibsPackaging.() -> Unit) = jniLibs.action()
}

class BuildFeatures {
    var compose: Boolean? = null
}

class BundleDeviceGroup {
    var enableSplit: Boolean? = null
    var defaultGroup: String? = null
}

class Bundle {
    var deviceTargetingConfig: File? = null
    val deviceGroup = BundleDeviceGroup()

    fun deviceGroup(action: BundleDeviceGroup.() -> Unit) = deviceGroup.action()
}

abstract class CommonExtension {
    var namespace: String? = null
    var compileSdk: Int? = null
    val defaultConfig = DefaultConfig()
    val compileOptions = CompileOptions()
    val androidResources = AndroidResources()
    val packaging = Packaging()
    val buildFeatures = BuildFeatures()

    fun defaultConfig(action: DefaultConfig.() -> Unit) = defaultConfig.action()

    fun compileOptions(action: CompileOptions.() -> Unit) = compileOptions.action()

    fun androidResources(action: AndroidResources.() -> Unit) = androidResources.action()

    fun packaging(action: Packaging.() -> Unit) = packaging.action()

    fun buildFeatures(action: BuildFeatures.() -> Unit) = buildFeatures.action()
}

open class LibraryExtension : CommonExtension()

open class ApplicationExtension : CommonExtension() {
    val assetPacks: MutableSet<String> = mutableSetOf()
    val bundle = Bundle()

    fun bundle(action: Bundle.() -> Unit) = bundle.action()
}

abstract class DynamicDelivery {
    abstract val deliveryType: Property<String>
}

abstract class AiPackExtension {
    abstract val packName: Property<String>

    @get:org.gradle.api.tasks.Nested
    abstract val dynamicDelivery: DynamicDelivery

    fun dynamicDelivery(action: DynamicDelivery.() -> Unit) = dynamicDelivery.action()
}
