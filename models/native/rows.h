// What is done to one row of numbers.
#pragma once

#include <cmath>

#include "vectors.h"

namespace penstock {

// x / rms(x) * (weight + offset)
template <typename T>
static void norm_row(const T* x, const T* weight, T* out, int64_t size, float eps, float offset) {
  Floats squares{};
  float rest = 0;
  int64_t d = 0;
  for (; d + LANES <= size; d += LANES) {
    const Floats v = load(x + d);
    squares += v * v;
  }
  for (; d < size; d++) rest += to_float(x[d]) * to_float(x[d]);
  const float scale = 1.0f / std::sqrt((sum(squares) + rest) / float(size) + eps);
  for (d = 0; d + LANES <= size; d += LANES)
    store(out + d, load(x + d) * scale * (load(weight + d) + offset));
  for (; d < size; d++) put(out + d, to_float(x[d]) * scale * (to_float(weight[d]) + offset));
}

template <typename X>
INLINE X silu(X x) {
  return x / (1.0f + exp(-x));
}

}  // namespace penstock
