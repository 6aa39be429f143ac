// One panel of weights by one block of rows, in registers.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "rows.h"

namespace penstock {

constexpr int PANEL = 2 * LANES;  // columns of weights that lie together
constexpr int MOST_ROWS = 14;     // of a block: with two sums each, as many as there are registers for
constexpr int FAR = 32;           // steps of a panel that are fetched ahead

struct Product {
  const void* x;        // [rows, size]
  const void* norm;     // [size]: weights of a norm of x, or null
  const void* weights;  // [columns / PANEL, size, PANEL]
  const void* bias;     // [columns], or null
  const void* other;    // [rows, width], or null
  void* y;              // [rows, width]
  int64_t rows, columns, size;  // columns: a multiple of PANEL; size: of LANES
  int64_t gated;  // whether half of a panel's columns are gates of the other half; width: columns, or half of them
  float eps, offset;  // of the norm
};

// Up to MOST_ROWS rows of x, from `row` on, as [size / LANES, MOST_ROWS, LANES]: what a block reads lies together.
template <typename T>
static void tile_rows(const Product& product, int64_t row, int64_t rows, float* to) {
  const int64_t size = product.size;
  static thread_local std::vector<T> room;
  if (product.norm) room.resize(std::max<size_t>(room.size(), size));
  for (int64_t r = 0; r < rows; r++) {
    const T* x = static_cast<const T*>(product.x) + (row + r) * size;
    if (product.norm) {
      norm_row(x, static_cast<const T*>(product.norm), room.data(), size, product.eps, product.offset);
      x = room.data();
    }
    for (int64_t k = 0; k < size; k += LANES) store(to + k * MOST_ROWS + r * LANES, load(x + k));
  }
}

// One step of a panel, laid out so that bfloat16 take two instructions.
INLINE void both(const float* p, Floats* first, Floats* second) {
  *first = load(p);
  *second = load(p + LANES);
}

INLINE void both(const uint16_t* p, Floats* first, Floats* second) {
  Words w;
  memcpy(&w, p, sizeof(w));
  *first = (Floats)(w << 16);
  *second = (Floats)(w & int32_t(0xffff0000));
}

// R rows from `row` on, which `x` holds in tiles, by a panel.
template <int R, typename T>
static void block(const Product& product, int64_t panel, int64_t row, const float* x) {
  const int64_t size = product.size;
  const T* w = static_cast<const T*>(product.weights) + panel * size * PANEL;
  Floats sum[R][2] = {};
  for (int64_t k = 0; k < size; k += LANES, x += MOST_ROWS * LANES)
    for (int64_t lane = 0; lane < LANES; lane++, w += PANEL) {
      __builtin_prefetch(w + FAR * PANEL, 0, 3);
      if constexpr (sizeof(T) == 4) __builtin_prefetch(w + FAR * PANEL + LANES, 0, 3);
      Floats first, second;
      both(w, &first, &second);
#pragma GCC unroll 14
      for (int r = 0; r < R; r++) {
        sum[r][0] += first * x[r * LANES + lane];
        sum[r][1] += second * x[r * LANES + lane];
      }
    }
  const T* bias = static_cast<const T*>(product.bias);
  const int64_t width = product.gated ? product.columns / 2 : product.columns;
  auto finish = [&](int64_t at, Floats y) {
    if (product.other) y += load(static_cast<const T*>(product.other) + at);
    store(static_cast<T*>(product.y) + at, y);
  };
#pragma GCC unroll 14
  for (int r = 0; r < R; r++) {
    Floats first_sum = sum[r][0], second_sum = sum[r][1];
    if (bias) {
      first_sum += load(bias + panel * PANEL);
      second_sum += load(bias + panel * PANEL + LANES);
    }
    const int64_t at = (row + r) * width;
    if (product.gated)
      finish(at + panel * LANES, silu(first_sum) * second_sum);
    else {
      finish(at + panel * PANEL, first_sum);
      finish(at + panel * PANEL + LANES, second_sum);
    }
  }
}

template <typename T, int... R>
INLINE void block_of(const Product& product, int64_t panel, int64_t row, int64_t rows, const float* x,
                     std::integer_sequence<int, R...>) {
  constexpr void (*by_rows[])(const Product&, int64_t, int64_t, const float*) = {block<R + 1, T>...};
  by_rows[rows - 1](product, panel, row, x);
}

template <typename T>
INLINE void block_of(const Product& product, int64_t panel, int64_t row, int64_t rows, const float* x) {
  block_of<T>(product, panel, row, rows, x, std::make_integer_sequence<int, MOST_ROWS>());
}

}  // namespace penstock

extern "C" void penstock_linear(const penstock::Product* product, int bf16, int threads);
