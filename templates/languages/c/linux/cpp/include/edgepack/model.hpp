// What the C++ APIs of all models share. Made by edgepack; the same file in every Linux bundle.
#ifndef EDGEPACK_MODEL_HPP_
#define EDGEPACK_MODEL_HPP_

#include <array>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "edgepack/model.h"

namespace edgepack {

// Thrown by the C++ API only; nothing is thrown across the C functions.
class Error : public std::runtime_error {
 public:
  explicit Error(const edgepack_error &error) : std::runtime_error(error.message), code_(error.code) {}
  Error(edgepack_code code, const std::string &message) : std::runtime_error(message), code_(code) {}

  edgepack_code code() const noexcept { return code_; }

 private:
  edgepack_code code_;
};

// Values that belong to someone else, as std::span of C++20.
template <typename T>
class View {
 public:
  View(const T *data, std::size_t size) noexcept : data_(data), size_(size) {}
  View(const std::vector<T> &values) noexcept : data_(values.data()), size_(values.size()) {}
  template <std::size_t N>
  View(const std::array<T, N> &values) noexcept : data_(values.data()), size_(N) {}
  template <std::size_t N>
  View(const T (&values)[N]) noexcept : data_(values), size_(N) {}

  const T *data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

  // Returns the values, or throws when there are not `expected` of them.
  const T *checked(std::size_t expected, const char *name) const {
    if (size_ != expected) {
      throw Error(EDGEPACK_BAD_ARGUMENT, std::string("'") + name + "': expected " + std::to_string(expected) +
                                             " values, got " + std::to_string(size_));
    }
    return data_;
  }

 private:
  const T *data_;
  std::size_t size_;
};

struct Label {
  std::string label;
  float score;
  std::size_t index;
};

struct Options {
  std::string data_dir;         // folder with the model's files; empty: the one compiled in
  std::string runtime_library;  // runtime to load; empty: the one compiled in, then the usual names
  int threads = 1;
  edgepack_accelerator accelerator = EDGEPACK_AUTO;
  std::string device;  // which Edge TPU: empty for any, ":0", "usb", "usb:0", "pci" or "pci:0"; lists by commas
  std::string compiled_file;  // another file compiled for the Edge TPU, co-compiled say; empty: the model's own

  // The same for the C API; valid as long as this object.
  edgepack_options c() const noexcept {
    edgepack_options options = edgepack_options();
    options.data_dir = data_dir.empty() ? nullptr : data_dir.c_str();
    options.runtime_library = runtime_library.empty() ? nullptr : runtime_library.c_str();
    options.threads = threads;
    options.accelerator = accelerator;
    options.device = device.c_str();
    options.compiled_file = compiled_file.empty() ? nullptr : compiled_file.c_str();
    return options;
  }
};

}  // namespace edgepack

#endif  // EDGEPACK_MODEL_HPP_
