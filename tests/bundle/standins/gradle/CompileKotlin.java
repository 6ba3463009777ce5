package standins;

import groovy.lang.Closure;
import java.util.Set;
import javax.inject.Inject;
import kotlin.Unit;
import kotlin.jvm.functions.Function1;
import org.gradle.api.Action;
import org.gradle.api.file.FileTreeElement;
import org.gradle.api.model.ObjectFactory;
import org.gradle.api.provider.Provider;
import org.gradle.api.specs.Spec;
import org.gradle.api.tasks.SourceTask;
import org.jetbrains.kotlin.gradle.dsl.KotlinJvmCompilerOptions;
import org.jetbrains.kotlin.gradle.dsl.KotlinJvmOptions;
import org.jetbrains.kotlin.gradle.tasks.KotlinJavaToolchain;
import org.jetbrains.kotlin.gradle.tasks.KotlinJvmCompile;

/** A task of the Kotlin plugin's real type, of which only the compiler options are used. */
public abstract class CompileKotlin extends SourceTask implements KotlinJvmCompile {
  private final KotlinJvmCompilerOptions options;

  @Inject
  public CompileKotlin(ObjectFactory objects) {
    options = objects.newInstance(KotlinJvmCompilerOptions.class);
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
  public org.gradle.api.file.FileCollection getSources() {
    return getSource();
  }

  @Override
  public void source(Object... sources) {}

  @Override
  public void setSource(Object... sources) {}
}
