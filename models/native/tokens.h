// A step's tokens between their product and attention.
#pragma once

#include <cstdint>

namespace penstock {

struct Tokens {
  void* both;  // [tokens, query_heads + 2 heads, size]: queries, keys, values
  const void *cos, *sin;  // [tokens, size]
  const int64_t* where;   // [tokens]
  void *keys, *values;    // [heads, positions, size]
  int64_t tokens, query_heads, heads, size, positions;
  int64_t key_head, key_position, value_head, value_position;  // strides, in elements
};

}  // namespace penstock

extern "C" int penstock_place(const penstock::Tokens* step, int bf16, int threads);
