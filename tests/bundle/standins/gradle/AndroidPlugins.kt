/** Stand-ins for the plugins that the generated scripts apply, in the versions that `agp` says. */
package standins

import com.android.build.api.dsl.AiPackExtension
import com.android.build.api.dsl.ApplicationExtension
import com.android.build.api.dsl.CommonExtension
import com.android.build.api.dsl.LibraryExtension
import org.gradle.api.Plugin
import org.gradle.api.Project

abstract class AndroidPlugin(
    private val type: Class<out CommonExtension>,
) : Plugin<Project> {
    override fun apply(target: Project) {
        val agp = target.extensions.extraProperties["agp"].toString().toInt()
        target.extensions.create("android", type)
        for (name in listOf("implementation", "androidTestImplementation")) target.configurations.create(name)
        // Version 9 has built-in Kotlin, which can be switched off; version 10 cannot.
        val optedOut = target.findProperty("android.builtInKotlin") == "false"
        if (agp >= 10 || (agp == 9 && !optedOut)) KotlinPlugin().apply(target)
    }
}

class LibraryPlugin : AndroidPlugin(LibraryExtension::class.java)

class ApplicationPlugin : AndroidPlugin(ApplicationExtension::class.java)

class AiPackPlugin : Plugin<Project> {
    override fun apply(target: Project) {
        target.extensions.create("aiPack", AiPackExtension::class.java)
    }
}

/** Adds the extension and a task that compiles Kotlin, as the real plugin and the built-in Kotlin do. */
class KotlinPlugin : Plugin<Project> {
    override fun apply(target: Project) {
        target.extensions.add("kotlin", Any())
        target.tasks.register("compileDebugKotlin", CompileKotlin::class.java)
    }
}

class ComposePlugin : Plugin<Project> {
    override fun apply(target: Project) {
        target.extensions.add("composeCompiler", Any())
    }
}
