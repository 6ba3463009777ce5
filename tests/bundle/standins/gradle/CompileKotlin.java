package standins;

import groovy.lang.Closure;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.Set;
import javax.inject.Inject;
import kotlin.Unit;
import kotlin.jvm.functions.Function1;
import org.gradle.api.Action;
import org.gradle.api.DefaultTask;
import org.gradle.api.file.FileCollection;
import org.gradle.api.file.FileTreeElement;
import org.gradle.api.model.ObjectFactory;
import org.gradle.api.provider.Property;
import org.gradle.api.provider.Provider;
import org.gradle.api.specs.Spec;
import org.gradle.api.tasks.util.PatternFilterable;
import org.jetbrains.kotlin.gradle.dsl.JvmTarget;
import org.jetbrains.kotlin.gradle.dsl.KotlinJvmCompilerOptions;
import org.jetbrains.kotlin.gradle.dsl.KotlinJvmOptions;
import org.jetbrains.kotlin.gradle.tasks.KotlinJavaToolchain;
import org.jetbrains.kotlin.gradle.tasks.KotlinJvmCompile;

/** A task of the Kotlin plugin's real type, of which only the compiler options are used. */
public abstract class CompileKotlin extends DefaultTask implements KotlinJvmCompile {
  private final KotlinJvmCompilerOptions options;

  @Inject
  public CompileKotlin(ObjectFactory objects) {
    Property<JvmTarget> target = objects.property(JvmTarget.class);
    Class<?>[] type = {KotlinJvmCompilerOptions.class};
    ClassLoader loader = CompileKotlin.class.getClassLoader();
    options =
        (KotlinJvmCompilerOptions)
            Proxy.newProxyInstance(loader, type, (proxy, method, arguments) -> target(method, target));
  }

  private static Object target(Method method, Property<JvmTarget> target) {
    if (!method.getName().equals("getJvmTarget")) {
      throw new UnsupportedOperationException(method.getName());
    }
    return target;
  }

  @Override
  public KotlinJvmCompilerOptions getCompilerOptions() {
    return options;
  }

  @Override
  public void compilerOptions(Function1<? super KotlinJvmCompilerOptions, Unit> configure) {
    configure.invoke(options);
  }

  @Override
  public void compilerOptions(Action<? super KotlinJvmCompilerOptions> configure) {
    configure.execute(options);
  }

  @Override
  public KotlinJvmOptions getKotlinOptions() {
    throw new UnsupportedOperationException();
  }

  @Override
  public void kotlinOptions(Function1<? super KotlinJvmOptions, Unit> configure) {}

  @Override
  public void kotlinOptions(Action<? super KotlinJvmOptions> configure) {}

  @Override
  public Provider<? extends KotlinJavaToolchain> getKotlinJavaToolchainProvider() {
    throw new UnsupportedOperationException();
  }

  @Override
  public KotlinJavaToolchain getKotlinJavaToolchain() {
    throw new UnsupportedOperationException();
  }

  @Override
  public FileCollection getSources() {
    throw new UnsupportedOperationException();
  }

  @Override
  public void source(Object... sources) {}

  @Override
  public void setSource(Object... sources) {}

  @Override
  public Set<String> getIncludes() {
    return Set.of();
  }

  @Override
  public Set<String> getExcludes() {
    return Set.of();
  }

  @Override
  public PatternFilterable setIncludes(Iterable<String> patterns) {
    return this;
  }

  @Override
  public PatternFilterable setExcludes(Iterable<String> patterns) {
    return this;
  }

  @Override
  public PatternFilterable include(String... patterns) {
    return this;
  }

  @Override
  public PatternFilterable include(Iterable<String> patterns) {
    return this;
  }

  @Override
  public PatternFilterable include(Spec<FileTreeElement> spec) {
    return this;
  }

  @Override
  public PatternFilterable include(Closure spec) {
    return this;
  }

  @Override
  public PatternFilterable exclude(String... patterns) {
    return this;
  }

  @Override
  public PatternFilterable exclude(Iterable<String> patterns) {
    return this;
  }

  @Override
  public PatternFilterable exclude(Spec<FileTreeElement> spec) {
    return this;
  }

  @Override
  public PatternFilterable exclude(Closure spec) {
    return this;
  }
}
