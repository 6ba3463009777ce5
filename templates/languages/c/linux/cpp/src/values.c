/* Real and raw values. Made by edgepack; the same file in every Linux bundle. */
#include <math.h>
#include <string.h>

#include "engine.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "models and golden vectors are little-endian: this processor is not"
#endif

size_t engine_type_size(engine_type type) {
  switch (type) {
    case ENGINE_UINT8:
    case ENGINE_INT8:
    case ENGINE_BOOL:
      return 1;
    case ENGINE_INT16:
    case ENGINE_UINT16:
    case ENGINE_FLOAT16:
      return 2;
    case ENGINE_FLOAT32:
    case ENGINE_INT32:
    case ENGINE_UINT32:
      return 4;
    case ENGINE_INT64:
    case ENGINE_UINT64:
    case ENGINE_FLOAT64:
    case ENGINE_COMPLEX64:
      return 8;
    case ENGINE_COMPLEX128:
      return 16;
  }
  return 0;
}

const char *engine_type_name(engine_type type) {
  switch (type) {
    case ENGINE_UINT8:
      return "uint8";
    case ENGINE_INT8:
      return "int8";
    case ENGINE_BOOL:
      return "bool";
    case ENGINE_INT16:
      return "int16";
    case ENGINE_UINT16:
      return "uint16";
    case ENGINE_FLOAT16:
      return "float16";
    case ENGINE_FLOAT32:
      return "float32";
    case ENGINE_INT32:
      return "int32";
    case ENGINE_UINT32:
      return "uint32";
    case ENGINE_INT64:
      return "int64";
    case ENGINE_UINT64:
      return "uint64";
    case ENGINE_FLOAT64:
      return "float64";
    case ENGINE_COMPLEX64:
      return "complex64";
    case ENGINE_COMPLEX128:
      return "complex128";
  }
  return "an unknown type";
}

/* -- quantization ------------------------------------------------------------------------------------------------ */

/* Halves to even, whatever the caller set the rounding mode to. */
static double round_even(double value) {
  const double below = floor(value);
  const double part = value - below;
  if (part != 0.5) {
    return part < 0.5 ? below : below + 1.0;
  }
  return fmod(below, 2.0) == 0.0 ? below : below + 1.0;
}

static double saturate(double value, double low, double high) {
  if (value < low) {
    return low;
  }
  return value > high ? high : value;
}

#define STORE(type, low, high) (((type *)raw)[i] = (type)saturate(rounded, (double)(low), (double)(high)))

/* In float32 and by the reciprocal, as the runtimes' default kernels: the results are the same bits. */
edgepack_code engine_quantize(const engine_tensor *tensor, const float *real, void *raw, edgepack_error *error) {
  const float inverse = 1.0F / tensor->scale;
  for (size_t i = 0; i < tensor->elements; ++i) {
    const float scaled = real[i] * inverse;
    if (isnan(scaled)) {
      return engine_fail(error, EDGEPACK_BAD_ARGUMENT, "'%s': expected numbers, value %zu is none", tensor->field, i);
    }
    const double rounded = round_even((double)scaled) + (double)tensor->zero_point;
    switch (tensor->type) {
      case ENGINE_INT8:
        STORE(int8_t, INT8_MIN, INT8_MAX);
        break;
      case ENGINE_UINT8:
        STORE(uint8_t, 0, UINT8_MAX);
        break;
      case ENGINE_INT16:
        STORE(int16_t, INT16_MIN, INT16_MAX);
        break;
      case ENGINE_UINT16:
        STORE(uint16_t, 0, UINT16_MAX);
        break;
      case ENGINE_INT32:
        STORE(int32_t, INT32_MIN, INT32_MAX);
        break;
      default:
        return engine_fail(error, EDGEPACK_BAD_ARGUMENT, "'%s': no quantized values of %s", tensor->field,
                           engine_type_name(tensor->type));
    }
  }
  return EDGEPACK_OK;
}

/* Value `i` of a tensor as a double; complex numbers are pairs. 64-bit integers may lose their last bits. */
static double value_at(engine_type type, const void *data, size_t i) {
  switch (type) {
    case ENGINE_INT8:
      return ((const int8_t *)data)[i];
    case ENGINE_UINT8:
    case ENGINE_BOOL:
      return ((const uint8_t *)data)[i];
    case ENGINE_INT16:
      return ((const int16_t *)data)[i];
    case ENGINE_UINT16:
      return ((const uint16_t *)data)[i];
    case ENGINE_INT32:
      return ((const int32_t *)data)[i];
    case ENGINE_UINT32:
      return ((const uint32_t *)data)[i];
    case ENGINE_INT64:
      return (double)((const int64_t *)data)[i];
    case ENGINE_UINT64:
      return (double)((const uint64_t *)data)[i];
    case ENGINE_FLOAT32:
    case ENGINE_COMPLEX64:
      return ((const float *)data)[i];
    case ENGINE_FLOAT64:
    case ENGINE_COMPLEX128:
      return ((const double *)data)[i];
    case ENGINE_FLOAT16: {
      const uint16_t bits = ((const uint16_t *)data)[i];
      const int exponent = (bits >> 10) & 31;
      const double mantissa = bits & 1023;
      double value = exponent == 0 ? ldexp(mantissa, -24) : ldexp(mantissa + 1024.0, exponent - 25);
      if (exponent == 31) {
        value = mantissa == 0.0 ? HUGE_VAL : nan("");
      }
      return (bits & 0x8000U) != 0 ? -value : value;
    }
  }
  return nan("");
}

void engine_dequantize(const engine_tensor *tensor, const void *raw, float *real) {
  for (size_t i = 0; i < tensor->elements; ++i) {
    real[i] = (float)((value_at(tensor->type, raw, i) - (double)tensor->zero_point) * (double)tensor->scale);
  }
}

/* -- golden vectors and labels ----------------------------------------------------------------------------------- */

void engine_compare(const engine_tensor *tensor, const void *expected, const void *actual,
                    const engine_tolerance *tolerance, edgepack_difference *difference) {
  const engine_type type = tensor->type;
  const int pairs = type == ENGINE_COMPLEX64 || type == ENGINE_COMPLEX128;
  const int real = pairs || type == ENGINE_FLOAT32 || type == ENGINE_FLOAT16 || type == ENGINE_FLOAT64;
  const size_t count = tensor->elements * (pairs ? 2 : 1);
  const size_t size = engine_type_size(type) / (pairs ? 2 : 1);
  double largest = 0.0;
  double magnitude = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const double wanted = value_at(type, expected, i);
    const double got = value_at(type, actual, i);
    if (isfinite(wanted) && fabs(wanted) > magnitude) {
      magnitude = fabs(wanted);
    }
    if (memcmp((const char *)expected + i * size, (const char *)actual + i * size, size) == 0 ||
        (isnan(wanted) && isnan(got))) {
      continue;
    }
    double distance = fabs(wanted - got);
    if (isnan(distance)) {
      distance = HUGE_VAL;
    } else if (!real && distance < 1.0) {
      distance = 1.0; /* different 64-bit integers that are the same double */
    }
    largest = distance > largest ? distance : largest;
  }
  difference->largest = largest;
  difference->allowed = real ? tolerance->relative * magnitude : (tensor->scale != 0.0F ? tolerance->steps : 0.0);
  difference->ok = largest <= difference->allowed;
}

size_t engine_rank(const char *const *labels, size_t count, const float *scores, size_t k, edgepack_label *best) {
  size_t found = 0;
  if (scores == NULL || best == NULL || k == 0) {
    return 0;
  }
  for (size_t i = 0; i < count; ++i) {
    /* Equal scores keep the labels' order; what is no number never ranks before a number. */
    size_t place = found < k ? found : k;
    while (place > 0 && (scores[i] > best[place - 1].score || (isnan(best[place - 1].score) && !isnan(scores[i])))) {
      --place;
    }
    if (place == k) {
      continue;
    }
    found = found < k ? found + 1 : k;
    memmove(&best[place + 1], &best[place], (found - place - 1) * sizeof *best);
    best[place].label = labels[i];
    best[place].score = scores[i];
    best[place].index = i;
  }
  return found;
}
