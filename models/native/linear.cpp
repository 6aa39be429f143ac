// y = x w' (+ bias) (+ other), of a norm of x and through a gate where asked, in float32, whatever the type
// of the numbers: weights lie in panels of 32 columns, and are read once for up to 14 rows. Each number of y
// is summed in the same order, so that no row's result depends on the rows beside it.
#include "linear.h"

#include <omp.h>

#include <algorithm>
#include <vector>

#include "shares.h"

namespace penstock {

// PANEL columns of w [columns, size] as [size, PANEL]. Of bfloat16 two columns share a word: the lower half
// belongs to the first 16.
static void lay_out(const float* w, int64_t size, float* to) {
  for (int64_t k = 0; k < size; k++)
    for (int c = 0; c < PANEL; c++) to[k * PANEL + c] = w[c * size + k];
}

static void lay_out(const uint16_t* w, int64_t size, uint16_t* to) {
  for (int64_t k = 0; k < size; k++)
    for (int c = 0; c < PANEL; c++) to[k * PANEL + c % LANES * 2 + c / LANES] = w[c * size + k];
}

template <typename T>
static void linear(const Product& product, int threads) {
  const int64_t size = product.size, panels = product.columns / PANEL;
  const int64_t blocks = (product.rows + MOST_ROWS - 1) / MOST_ROWS;
  const int64_t each = product.rows / blocks, more = product.rows % blocks;  // rows of a block, blocks of one more
  auto begin = [&](int64_t b) { return b * each + std::min(b, more); };
  static thread_local std::vector<float> room;
  room.resize(std::max<size_t>(room.size(), blocks * size * MOST_ROWS));
  float* tiles = room.data();
  // Where there are too few panels for the threads, the blocks of each are shared out as well.
  const int64_t parts = std::clamp<int64_t>(4 * threads / panels, 1, blocks);
  Shares tiling(blocks, threads), multiplying(panels * parts, threads);
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num();
    for (int64_t b; (b = tiling.take(thread)) >= 0;)
      tile_rows<T>(product, begin(b), begin(b + 1) - begin(b), tiles + b * size * MOST_ROWS);
#pragma omp barrier
    for (int64_t item; (item = multiplying.take(thread)) >= 0;) {
      const int64_t panel = item / parts, part = item % parts;
      for (int64_t b = part * blocks / parts; b < (part + 1) * blocks / parts; b++)
        block_of<T>(product, panel, begin(b), begin(b + 1) - begin(b), tiles + b * size * MOST_ROWS);
    }
  }
}

}  // namespace penstock

extern "C" {

// `columns` is a multiple of 32.
void penstock_lay_out(const void* w, void* to, int64_t columns, int64_t size, int bf16, int threads) {
  auto run = [&](auto one) {
    using T = decltype(one);
#pragma omp parallel for num_threads(threads)
    for (int64_t c = 0; c < columns; c += penstock::PANEL)
      penstock::lay_out(static_cast<const T*>(w) + c * size, size, static_cast<T*>(to) + c * size);
  };
  bf16 ? run(uint16_t()) : run(float());
}

void penstock_linear(const penstock::Product* product, int bf16, int threads) {
  bf16 ? penstock::linear<uint16_t>(*product, threads) : penstock::linear<float>(*product, threads);
}
}
