// Tiny Model 2.0: C++17 API of one model.
//
// Made by edgepack. Values go in and come out as real numbers; failures are edgepack::Error.
#ifndef TINY_MODEL_2_0_TINY_MODEL_2_0_HPP_
#define TINY_MODEL_2_0_TINY_MODEL_2_0_HPP_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "edgepack/model.hpp"
#include "tiny_model_2_0/tiny_model_2_0.h"

namespace edgepack {
namespace tiny_model_2_0 {

// Outputs of one run.
struct Result {
  // scores: real values, shape [1, 3].
  std::vector<float> scores = std::vector<float>(TINY_MODEL_2_0_OUTPUT_SCORES_SIZE);
  // 2nd-output: FLOAT32, shape [1, 2].
  std::vector<float> output_2nd_output = std::vector<float>(TINY_MODEL_2_0_OUTPUT_OUTPUT_2ND_OUTPUT_SIZE);
  // scores: INT64, shape [].
  std::vector<int64_t> scores2 = std::vector<int64_t>(TINY_MODEL_2_0_OUTPUT_SCORES2_SIZE);

  // The labels with the highest values, best first.
  std::vector<Label> top_k_scores(std::size_t k = 5) const {
    std::vector<edgepack_label> best(k);
    best.resize(tiny_model_2_0_top_k_scores(this->scores.data(), k, best.data()));
    std::vector<Label> labels;
    for (const edgepack_label &found : best) {
      labels.push_back(Label{found.label, found.score, found.index});
    }
    return labels;
  }
};

// The model, loaded. Movable; one thread at a time.
class Model {
 public:
  explicit Model(const Options &options = Options()) {
    edgepack_error error = edgepack_error();
    const edgepack_options plain = options.c();
    handle_.reset(tiny_model_2_0_create(&plain, &error));
    if (handle_ == nullptr) {
      throw Error(error);
    }
  }

  // What runs the model, and why not something better.
  const edgepack_status &status() const noexcept { return *tiny_model_2_0_status(handle_.get()); }

  // Runs the model on real values.
  Result run(View<float> my_image, View<float> class_) {
    Result result;
    tiny_model_2_0_inputs inputs = tiny_model_2_0_inputs();
    inputs.my_image = my_image.checked(TINY_MODEL_2_0_INPUT_MY_IMAGE_SIZE, "my_image");
    inputs.class_ = class_.checked(TINY_MODEL_2_0_INPUT_CLASS_SIZE, "class_");
    tiny_model_2_0_outputs outputs = tiny_model_2_0_outputs();
    outputs.scores = result.scores.data();
    outputs.output_2nd_output = result.output_2nd_output.data();
    outputs.scores2 = result.scores2.data();
    edgepack_error error = edgepack_error();
    check(tiny_model_2_0_run(handle_.get(), &inputs, &outputs, &error), error);
    return result;
  }

  // Runs the golden vectors that came with the model.
  std::vector<edgepack_difference> self_test() {
    std::vector<edgepack_difference> differences(TINY_MODEL_2_0_DIFFERENCES);
    edgepack_error error = edgepack_error();
    check(tiny_model_2_0_self_test(handle_.get(), differences.data(), &error), error);
    return differences;
  }

  // Forgets the state of a model that has one (LSTM).
  void reset() {
    edgepack_error error = edgepack_error();
    check(tiny_model_2_0_reset(handle_.get(), &error), error);
  }

  // The C API's handle, for what this class does not cover.
  tiny_model_2_0_model *get() noexcept { return handle_.get(); }

 private:
  struct Destroy {
    void operator()(tiny_model_2_0_model *model) const noexcept { tiny_model_2_0_destroy(model); }
  };

  static void check(edgepack_code code, const edgepack_error &error) {
    if (code != EDGEPACK_OK) {
      throw Error(error);
    }
  }

  std::unique_ptr<tiny_model_2_0_model, Destroy> handle_;
};

}  // namespace tiny_model_2_0
}  // namespace edgepack

#endif  // TINY_MODEL_2_0_TINY_MODEL_2_0_HPP_
