// One panel of weights by one block of rows, in registers.
#pragma once

#include <utility>

#include "vectors.h"

namespace penstock {

constexpr int PANEL = 2 * LANES;  // columns of weights that lie together
constexpr int MOST_ROWS = 14;     // of a block: with two sums each, as many as there are registers for
constexpr int FAR = 32;           // steps of a panel that are fetched ahead

struct Product {
  const void* x;        // [rows, size]
  const void* weights;  // [columns / PANEL, size, PANEL]
  const void* bias;     // [columns], or null
  const void* other;    // [rows, columns], or null
  void* y;              // [rows, columns]
  int64_t rows, columns, size;  // columns: a multiple of PANEL; size: of LANES
};

// Up to LANES rows of x [rows, size] as [size, LANES].
template <typename T>
static void turn_rows(const T* x, int64_t rows, int64_t size, float* to) {
  for (int64_t k = 0; k < size; k += LANES) {
    Floats r[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) r[i] = i < rows ? load(x + i * size + k) : Floats{};
    transpose(r);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) store(to + (k + i) * LANES, r[i]);
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

// R rows from `row` on, which `x` holds as [size, LANES], by a panel.
template <int R, typename T>
static void block(const Product& product, int64_t panel, int64_t row, const float* x) {
  const int64_t size = product.size;
  const T* w = static_cast<const T*>(product.weights) + panel * size * PANEL;
  Floats sum[R][2] = {};
  for (int64_t k = 0; k < size; k++) {
    __builtin_prefetch(w + (k + FAR) * PANEL, 0, 3);
    if constexpr (sizeof(T) == 4) __builtin_prefetch(w + (k + FAR) * PANEL + LANES, 0, 3);
    Floats first, second;
    both(w + k * PANEL, &first, &second);
#pragma GCC unroll 14
    for (int r = 0; r < R; r++) {
      sum[r][0] += first * x[k * LANES + r];
      sum[r][1] += second * x[k * LANES + r];
    }
  }
  const T* bias = static_cast<const T*>(product.bias);
#pragma GCC unroll 14
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
      const int64_t column = panel * PANEL + h * LANES, at = (row + r) * product.columns + column;
      Floats y = sum[r][h];
      if (bias) y += load(bias + column);
      if (product.other) y += load(static_cast<const T*>(product.other) + at);
      store(static_cast<T*>(product.y) + at, y);
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
