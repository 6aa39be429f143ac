// Row by row: root-mean-square norm, the gate of a feed-forward layer, rotary positions, the way of
// keys and values into the arena, the greatest of a row, and the greatest by rough logits.
#include <algorithm>
#include <cmath>
#include <vector>

#include "rows.h"
#include "tokens.h"

namespace penstock {

constexpr float HALF_STEP = 1.01f / 256;  // what rounding to bfloat16 moves a number by at most, and a little
constexpr int64_t SMALL = 1 << 14;  // numbers below which waking threads takes longer

template <typename T>
static void norm(const T* x, int64_t row, const T* weight, T* out, int64_t rows, int64_t size, float eps,
                 float offset, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * size > SMALL)
  for (int64_t r = 0; r < rows; r++) norm_row(x + r * row, weight, out + r * size, size, eps, offset);
}

// silu(gate) * up, where a row holds both.
template <typename T>
static void gate(const T* both, T* out, int64_t rows, int64_t size, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * size > SMALL)
  for (int64_t r = 0; r < rows; r++) {
    const T *g = both + r * 2 * size, *up = g + size;
    T* to = out + r * size;
    int64_t d = 0;
    for (; d + LANES <= size; d += LANES) store(to + d, silu(load(g + d)) * load(up + d));
    for (; d < size; d++) put(to + d, silu(to_float(g[d])) * to_float(up[d]));
  }
}

struct Heads {
  const void* from;
  void* to;             // [T, heads, size]
  int64_t token, head;  // strides of `from`, in elements
  int64_t heads;
};

// Each number of a head turns with the one half a head further: x cos - y sin, y cos + x sin.
// `to` may be `from`.
template <typename T>
static void rotate(const T* from, T* to, const T* cos, const T* sin, int64_t size) {
  const int64_t half = size / 2;
  for (int64_t d = 0; d < half; d += LANES) {
    const Floats x = load(from + d), y = load(from + half + d);
    store(to + d, x * load(cos + d) - y * load(sin + d));
    store(to + half + d, y * load(cos + half + d) + x * load(sin + half + d));
  }
}

template <typename T>
static void rotary(const Heads* both, const T* cos, const T* sin, int64_t tokens, int64_t size, int threads) {
  const int64_t numbers = tokens * (both[0].heads + both[1].heads) * size;
#pragma omp parallel for num_threads(threads) if (numbers > SMALL)
  for (int64_t t = 0; t < tokens; t++)
    for (int i = 0; i < 2; i++)
      for (int64_t h = 0; h < both[i].heads; h++) {
        const T* from = static_cast<const T*>(both[i].from) + t * both[i].token + h * both[i].head;
        T* to = static_cast<T*>(both[i].to) + (t * both[i].heads + h) * size;
        rotate(from, to, cos + t * size, sin + t * size, size);
      }
}

// Queries turn where they are; keys and values go to their places.
template <typename T>
static void place(const Tokens& s, int threads) {
  const int64_t row = (s.query_heads + 2 * s.heads) * s.size;
#pragma omp parallel for num_threads(threads) if (s.tokens * row > SMALL)
  for (int64_t t = 0; t < s.tokens; t++) {
    const T *cos = static_cast<const T*>(s.cos) + t * s.size, *sin = static_cast<const T*>(s.sin) + t * s.size;
    T* query = static_cast<T*>(s.both) + t * row;
    const T *key = query + s.query_heads * s.size, *value = key + s.heads * s.size;
    T* to_key = static_cast<T*>(s.keys) + s.where[t] * s.key_position;
    T* to_value = static_cast<T*>(s.values) + s.where[t] * s.value_position;
    for (int64_t h = 0; h < s.heads; h++)  // what is written last is far away
      for (int64_t d = 0; d < s.size; d += 64 / int64_t(sizeof(T))) {
        __builtin_prefetch(to_key + h * s.key_head + d, 1);
        __builtin_prefetch(to_value + h * s.value_head + d, 1);
      }
    for (int64_t h = 0; h < s.query_heads; h++) rotate(query + h * s.size, query + h * s.size, cos, sin, s.size);
    for (int64_t h = 0; h < s.heads; h++) {
      rotate(key + h * s.size, to_key + h * s.key_head, cos, sin, s.size);
      memcpy(to_value + h * s.value_head, value + h * s.size, s.size * sizeof(T));
    }
  }
}

struct Rows {
  const void* from;     // [heads, tokens, size]
  void* to;             // [heads, positions, size]
  int64_t from_head, from_token, to_head, to_position;  // strides, in elements
  int64_t size;
};

template <typename T>
static void write(const Rows* both, const int64_t* where, int64_t heads, int64_t tokens, int threads) {
  const int64_t numbers = heads * tokens * (both[0].size + both[1].size);
#pragma omp parallel for collapse(2) num_threads(threads) if (numbers > SMALL)
  for (int i = 0; i < 2; i++)
    for (int64_t h = 0; h < heads; h++) {
      const Rows& rows = both[i];
      const T* from = static_cast<const T*>(rows.from) + h * rows.from_head;
      T* to = static_cast<T*>(rows.to) + h * rows.to_head;
      for (int64_t t = 0; t < tokens; t++)
        memcpy(to + where[t] * rows.to_position, from + t * rows.from_token, rows.size * sizeof(T));
    }
}

// The first of the greatest numbers; a NaN before all.
template <typename T>
static int64_t greatest(const T* x, int64_t size) {
  constexpr int64_t BLOCK = 512;
  float top = -INFINITY;
  int64_t where = 0;
  Floats odd{};  // NaN from the first NaN or infinity on
  for (int64_t begin = 0; begin < size; begin += BLOCK) {
    const int64_t end = std::min(begin + BLOCK, size);
    Floats tops = all(-INFINITY);
    int64_t d = begin;
    for (; d + LANES <= end; d += LANES) {
      const Floats v = load(x + d);
      tops = larger(v, tops);
      odd += v - v;
    }
    for (; d < end; d++) {
      tops = larger(all(to_float(x[d])), tops);
      odd += to_float(x[d]) - to_float(x[d]);
    }
    const float best = largest(tops);
    if (best > top) top = best, where = begin;
  }
  if (!(sum(odd) == 0))
    for (int64_t d = 0; d < size; d++)
      if (to_float(x[d]) != to_float(x[d])) return d;
  while (to_float(x[where]) != top) where++;
  return where;
}

// Logits that were made of rounded numbers and rounded, and what they were made of. True ones are in
// another order only where rough ones are less than `margin` apart before they are rounded.
struct Rough {
  const uint16_t* logits;  // [rows, size]
  const float* margin;     // [rows]
  const void *x, *weight;  // [rows, width], [size, width]
  int64_t row, size, width;
  int32_t bf16;  // the type of `x`, of `weight` and of true logits
};

template <typename T>
static float dot(const T* a, const T* b, int64_t size) {
  Floats sums[4] = {};
  int64_t d = 0;
  for (; d + 4 * LANES <= size; d += 4 * LANES)
    for (int i = 0; i < 4; i++) sums[i] += load(a + d + i * LANES) * load(b + d + i * LANES);
  float rest = 0;
  for (; d < size; d++) rest += to_float(a[d]) * to_float(b[d]);
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

// The first of the greatest true logits; -1 where more than `most` may be it, or none is a number.
template <typename T>
static int64_t refined(const Rough& s, int64_t r, int most, std::vector<float>& tops) {
  constexpr int64_t BLOCK = 512;
  const uint16_t* logits = s.logits + r * s.row;
  float top = -INFINITY;
  tops.clear();
  for (int64_t begin = 0; begin < s.size; begin += BLOCK) {
    const int64_t end = std::min(begin + BLOCK, s.size);
    Floats seen = all(-INFINITY);
    int64_t d = begin;
    for (; d + LANES <= end; d += LANES) seen = larger(load(logits + d), seen);
    for (; d < end; d++) seen = larger(all(to_float(logits[d])), seen);
    tops.push_back(largest(seen));
    top = std::max(top, tops.back());
  }
  // The rounding of a rough logit; of true ones too, where those are equal after it.
  const float lost = (sizeof(T) == 4 ? 1 : 4) * HALF_STEP;
  // What was at least this before it was rounded, is at least this rounded alike.
  const float floor = to_float(to_bf16(all(top - std::abs(top) * lost - s.margin[r] * (1 + lost)))[0]);
  const T *x = static_cast<const T*>(s.x) + r * s.width, *weight = static_cast<const T*>(s.weight);
  int64_t best = -1;
  float greatest = -INFINITY;
  for (size_t block = 0; block < tops.size(); block++) {
    if (!(tops[block] >= floor)) continue;
    const int64_t begin = int64_t(block) * BLOCK, end = std::min(begin + BLOCK, s.size);
    for (int64_t d = begin; d < end; d++) {
      if (!(to_float(logits[d]) >= floor)) continue;
      if (most-- == 0) return -1;
      T rounded;
      put(&rounded, dot(x, weight + d * s.width, s.width));
      const float logit = to_float(rounded);
      if (logit > greatest) greatest = logit, best = d;
    }
  }
  return best;
}

}  // namespace penstock

extern "C" {

using penstock::Heads;

void penstock_norm(const void* x, int64_t row, const void* weight, void* out, int64_t rows, int64_t size, float eps,
                   float offset, int bf16, int threads) {
  auto run = [&](auto one) {
    using T = decltype(one);
    penstock::norm(static_cast<const T*>(x), row, static_cast<const T*>(weight), static_cast<T*>(out), rows, size,
                   eps, offset, threads);
  };
  bf16 ? run(uint16_t()) : run(float());
}

void penstock_gate(const void* both, void* out, int64_t rows, int64_t size, int bf16, int threads) {
  auto run = [&](auto one) {
    using T = decltype(one);
    penstock::gate(static_cast<const T*>(both), static_cast<T*>(out), rows, size, threads);
  };
  bf16 ? run(uint16_t()) : run(float());
}

// Queries and keys; half a head is a multiple of 16.
void penstock_rotary(const Heads* both, const void* cos, const void* sin, int64_t tokens, int64_t size, int bf16,
                     int threads) {
  auto run = [&](auto one) {
    using T = decltype(one);
    penstock::rotary(both, static_cast<const T*>(cos), static_cast<const T*>(sin), tokens, size, threads);
  };
  bf16 ? run(uint16_t()) : run(float());
}

// Keys and values; not 0: a place is not in the arena, and nothing is written.
int penstock_write(const penstock::Rows* both, const int64_t* where, int64_t heads, int64_t tokens, int64_t positions,
                   int bf16, int threads) {
  for (int64_t t = 0; t < tokens; t++)
    if (where[t] < 0 || where[t] >= positions) return 1;
  bf16 ? penstock::write<uint16_t>(both, where, heads, tokens, threads)
       : penstock::write<float>(both, where, heads, tokens, threads);
  return 0;
}

// Half a head is a multiple of 16. Not 0: a place is not in the arena, and nothing is done.
int penstock_place(const penstock::Tokens* step, int bf16, int threads) {
  for (int64_t t = 0; t < step->tokens; t++)
    if (step->where[t] < 0 || step->where[t] >= step->positions) return 1;
  bf16 ? penstock::place<uint16_t>(*step, threads) : penstock::place<float>(*step, threads);
  return 0;
}

void penstock_greatest(const void* x, int64_t row, int64_t* out, int64_t rows, int64_t size, int bf16, int threads) {
  auto run = [&](auto one) {
    using T = decltype(one);
#pragma omp parallel for num_threads(threads) if (rows * size > penstock::SMALL)
    for (int64_t r = 0; r < rows; r++) out[r] = penstock::greatest(static_cast<const T*>(x) + r * row, size);
  };
  bf16 ? run(uint16_t()) : run(float());
}

void penstock_refine(const penstock::Rough* rough, int64_t* out, int64_t rows, int most, int threads) {
#pragma omp parallel num_threads(threads) if (rows * rough->size > penstock::SMALL)
  {
    std::vector<float> tops;
#pragma omp for
    for (int64_t r = 0; r < rows; r++)
      out[r] = rough->bf16 ? penstock::refined<uint16_t>(*rough, r, most, tops)
                           : penstock::refined<float>(*rough, r, most, tops);
  }
}
}
