/**
 * Evaluates generated scripts in real Gradle projects and prints what they configured, one line each.
 *
 * Every argument is a case: its name, the class with the script, the plugin version, and properties, separated by commas.
 */
import com.android.build.api.dsl.AiPackExtension
import com.android.build.api.dsl.ApplicationExtension
import com.android.build.api.dsl.CommonExtension
import org.gradle.api.Project
import org.gradle.testfixtures.ProjectBuilder
import standins.CompileKotlin
import java.io.File
import java.lang.reflect.InvocationTargetException

fun main(cases: Array<String>) {
    for (case in cases) {
        val (name, script, agp) = case.split(",")
        val project = ProjectBuilder.builder().withProjectDir(File(System.getProperty("folder"), name)).build()
        project.extensions.extraProperties["agp"] = agp
        case.split(",").drop(3).forEach { project.extensions.extraProperties[it.substringBefore("=")] = it.substringAfter("=") }
        try {
            Class.forName("${script}Kt").getMethod("evaluate", Project::class.java).invoke(null, project)
        } catch (error: InvocationTargetException) {
            println("$name error " + generateSequence(error.cause) { it.cause }.joinToString(": ") { it.message ?: it.toString() })
            continue
        }
        println("$name plugins " + project.plugins.map { it.javaClass.simpleName }.filter { it in KNOWN }.sorted())
        (project.extensions.findByName("android") as? CommonExtension)?.let { report(name, project, it) }
        (project.extensions.findByName("aiPack") as? AiPackExtension)?.let {
            println("$name pack ${it.packName.get()} ${it.dynamicDelivery.deliveryType.get()}")
        }
    }
    System.exit(0)
}

private val KNOWN = setOf("LibraryPlugin", "ApplicationPlugin", "KotlinPlugin", "ComposePlugin", "AiPackPlugin")

private fun report(
    name: String,
    project: Project,
    android: CommonExtension,
) {
    val config = android.defaultConfig
    println("$name sdk ${android.compileSdk} ${config.minSdk} ${config.targetSdk}")
    println("$name namespace ${android.namespace} ${config.applicationId} ${config.testApplicationId} ${config.testInstrumentationRunner}")
    println("$name java ${android.compileOptions.sourceCompatibility} ${android.compileOptions.targetCompatibility}")
    val targets = project.tasks.withType(CompileKotlin::class.java).map { it.compilerOptions.jvmTarget.orNull?.target }
    println("$name kotlin $targets")
    println("$name files ${config.consumerFiles} ${android.androidResources.noCompress} ${android.packaging.jniLibs.useLegacyPackaging}")
    for (configuration in listOf("implementation", "androidTestImplementation")) {
        val found = project.configurations.getByName(configuration).dependencies.map { "${it.group}:${it.name}:${it.version}" }
        println("$name $configuration ${found.sorted()}")
    }
    if (android is ApplicationExtension) {
        println("$name app ${android.assetPacks} ${android.bundle.deviceTargetingConfig?.name} ${android.bundle.deviceGroup.defaultGroup}")
    }
}
