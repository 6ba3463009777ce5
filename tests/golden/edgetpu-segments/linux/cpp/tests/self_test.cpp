// Replays the golden vectors that came with the model. Made by edgepack.
//   self_test [DATA_DIR] [--runtime LIBRARY] [--threads N]
//             [--accelerator auto|require|never] [--device DEVICE] [--compiled FILE]
// Ends with 0 when every output agrees, 1 when one does not, 2 when the model does not run.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "tiny_model_2_0/tiny_model_2_0.hpp"

namespace {

const char *const kOutputs[] = {
    "scores",
    "output_2nd_output",
    "scores2",
};

// Returns false for wrong use.
bool parse(int count, char **arguments, edgepack::Options *options) {
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument.compare(0, 2, "--") != 0) {
      options->data_dir = argument;
      continue;
    }
    if (i + 1 == count) {
      return false;
    }
    const std::string value = arguments[++i];
    if (argument == "--runtime") {
      options->runtime_library = value;
    } else if (argument == "--threads") {
      options->threads = std::atoi(value.c_str());
    } else if (argument == "--device") {
      options->device = value;
    } else if (argument == "--compiled") {
      options->compiled_file = value;
    } else if (argument == "--accelerator" && (value == "auto" || value == "require" || value == "never")) {
      options->accelerator = value == "auto" ? EDGEPACK_AUTO : value == "require" ? EDGEPACK_REQUIRE : EDGEPACK_NEVER;
    } else {
      return false;
    }
  }
  return true;
}

int run(const edgepack::Options &options) {
  edgepack::tiny_model_2_0::Model model(options);
  const edgepack_status &status = model.status();
  std::fprintf(stderr, "%s on %s, %s (%s)\n", status.model, status.accelerator, status.runtime, status.library);
  if (status.reason[0] != '\0') {
    std::fprintf(stderr, "running on the %s: %s\n", std::strcmp(status.accelerator, "cpu") == 0 ? "CPU" : "accelerator",
                 status.reason);
  }
  std::size_t failed = 0;
  const std::vector<edgepack_difference> differences = model.self_test();
  for (const edgepack_difference &found : differences) {
    failed += found.ok ? 0 : 1;
    std::printf("case %zu\t%s\tlargest difference %g\tallowed %g\t%s\n", found.golden_case, kOutputs[found.output],
                found.largest, found.allowed, found.ok ? "ok" : "FAILED");
  }
  const std::string kind = std::string(status.accelerator) == "cpu" ? "other" : "accelerator";
  std::printf("self-test: %zu of %zu outputs agree (tolerance: %s)\n", differences.size() - failed, differences.size(),
              kind.c_str());
  return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char **arguments) {
  edgepack::Options options;
  if (!parse(count, arguments, &options)) {
    std::fprintf(stderr, "usage: %s [DATA_DIR] [--runtime LIBRARY] [--threads N]\n", arguments[0]);
    std::fprintf(stderr, "       [--accelerator auto|require|never] [--device DEVICE]\n");
    return 2;
  }
  try {
    return run(options);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
