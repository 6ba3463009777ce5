/**
 * Stand-in for the part of Gradle's Kotlin DSL (gradle-kotlin-dsl, which is on no repository that the tests reach) that the
 * generated scripts use. Everything below it is Gradle itself.
 */
package org.gradle.kotlin.dsl

import org.gradle.api.Project
import org.gradle.api.Task
import org.gradle.api.plugins.PluginAware
import org.gradle.api.tasks.TaskCollection

fun PluginAware.apply(
    from: Any? = null,
    plugin: String? = null,
    to: Any? = null,
) = apply { options ->
    if (from != null) options.from(from)
    if (plugin != null) options.plugin(plugin)
    if (to != null) options.to(to)
}

inline fun <reified S : Task> TaskCollection<in S>.withType(): TaskCollection<S> = withType(S::class.java)

/** One line of a `plugins` block. */
class PluginRequest(
    private val project: Project,
    private val id: String,
) {
    infix fun apply(now: Boolean) {
        if (now) project.pluginManager.apply(id)
    }
}

/** A `plugins` block, which applies each plugin where it stands. */
class Plugins(
    private val project: Project,
) {
    fun id(id: String) = PluginRequest(project, id).apply(true)

    /** A plugin of the version catalog; `apply false` only makes it known. */
    fun alias(id: String) = PluginRequest(project, id)
}

fun Project.plugins(block: Plugins.() -> Unit) = Plugins(this).block()

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
