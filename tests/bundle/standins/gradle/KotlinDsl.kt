/**
 * Stand-in for the part of Gradle's Kotlin DSL (gradle-kotlin-dsl, which is on no repository that the tests reach) that the
 * generated scripts use. Everything below it is Gradle itself.
 */
package org.gradle.kotlin.dsl

import org.gradle.api.Action
import org.gradle.api.Project
import org.gradle.api.Task
import org.gradle.api.plugins.ObjectConfigurationAction
import org.gradle.api.plugins.PluginAware
import org.gradle.api.tasks.TaskCollection

fun PluginAware.apply(
    from: Any? = null,
    plugin: String? = null,
    to: Any? = null,
) {
    apply(
        Action<ObjectConfigurationAction> {
            if (from != null) this.from(from)
            if (plugin != null) this.plugin(plugin)
            if (to != null) this.to(to)
        },
    )
}

inline fun <reified S : Task> TaskCollection<in S>.withType(): TaskCollection<S> = withType(S::class.java)

/** One line of a `plugins` block; `apply false` only makes the plugin known. */
class PluginRequest(
    val id: String,
) {
    var applied = true
        private set

    infix fun apply(now: Boolean) {
        applied = now
    }
}

/** A `plugins` block; [alias] takes an entry of the version catalog. */
class Plugins {
    val requests = mutableListOf<PluginRequest>()

    fun id(id: String) = PluginRequest(id).also { requests += it }

    fun alias(id: String) = id(id)
}

fun Project.plugins(block: Plugins.() -> Unit) {
    val plugins = Plugins()
    plugins.block()
    plugins.requests.filter { it.applied }.forEach { pluginManager.apply(it.id) }
}

class Dependencies(
    private val project: Project,
) {
    fun implementation(notation: Any) = add("implementation", notation)

    fun androidTestImplementation(notation: Any) = add("androidTestImplementation", notation)

    fun platform(notation: String): Any = project.dependencies.platform(notation)

    fun project(path: String): Any = "local" + path

    private fun add(
        configuration: String,
        notation: Any,
    ) {
        project.dependencies.add(configuration, notation)
    }
}

fun Project.dependencies(block: Dependencies.() -> Unit) = Dependencies(this).block()
