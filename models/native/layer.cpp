// A decoder layer of the Llama kind as one call: between its parts nothing waits for Python.
#include <cstring>

#include "linear.h"
#include "tokens.h"
#include "worker.h"

namespace penstock {

// What does not change. Each without x, other, y and rows.
struct Layer {
  Product qkv, out, both, down;
};

struct Pass {
  const void* x;        // [tokens, hidden]
  void* y;              // the same
  const int64_t* keep;  // [kept]: tokens that go on once keys and values are placed
  int64_t kept;         // -1: all
  const void* plan;  // of those that go on
  Tokens tokens;     // without `both`
  Call call;         // without queries and `out`
};

// Room for rows of `bytes` each, side by side, one piece after the other.
class Room {
 public:
  explicit Room(char* at) : at(at) {}
  static int64_t size(int64_t rows, int64_t bytes) { return round_up(rows * bytes, 64); }
  char* take(int64_t rows, int64_t bytes) {
    char* taken = at;
    at += size(rows, bytes);
    return taken;
  }

 private:
  char* at;
};

static void multiply(Product product, const void* x, const void* other, void* y, int64_t rows, int bf16, int threads) {
  product.x = x;
  product.other = other;
  product.y = y;
  product.rows = rows;
  penstock_linear(&product, bf16, threads);
}

static int run(const Layer& layer, const Pass& pass, int bf16, int threads) {
  const int64_t width = bf16 ? 2 : 4, tokens = pass.tokens.tokens, rows = pass.kept < 0 ? tokens : pass.kept;
  const int64_t hidden = layer.qkv.size * width, all = layer.qkv.columns * width;
  const int64_t seeing = layer.out.size * width, inner = layer.down.size * width;
  static thread_local Array<char> memory;
  Room room(memory.of(Room::size(tokens, all) + 2 * Room::size(rows, seeing) + 3 * Room::size(rows, hidden) +
                      Room::size(rows, inner)));
  Tokens placed = pass.tokens;
  Call call = pass.call;

  char* qkv = room.take(tokens, all);
  multiply(layer.qkv, pass.x, nullptr, qkv, tokens, bf16, threads);
  placed.both = qkv;
  if (penstock_place(&placed, bf16, threads)) return 1;
  if (pass.kept >= 0) memcpy(pass.y, pass.x, tokens * hidden);
  if (!rows) return 0;

  const char* x = static_cast<const char*>(pass.x);
  call.query = qkv;
  call.query_head = placed.size;
  call.query_token = layer.qkv.columns;
  char* y = static_cast<char*>(pass.y);
  if (pass.kept >= 0) {
    char *queries = room.take(rows, seeing), *residual = room.take(rows, hidden);
    for (int64_t r = 0; r < rows; r++) {
      memcpy(queries + r * seeing, qkv + pass.keep[r] * all, seeing);
      memcpy(residual + r * hidden, x + pass.keep[r] * hidden, hidden);
    }
    call.query = queries;
    call.query_token = layer.out.size;
    x = residual;
    y = room.take(rows, hidden);
  }

  call.out = room.take(rows, seeing);
  if (penstock_attend(pass.plan, &call)) return 2;
  char *between = room.take(rows, hidden), *gated = room.take(rows, inner);
  multiply(layer.out, call.out, x, between, rows, bf16, threads);
  multiply(layer.both, between, nullptr, gated, rows, bf16, threads);
  multiply(layer.down, gated, between, y, rows, bf16, threads);
  if (pass.kept >= 0)
    for (int64_t r = 0; r < rows; r++)
      memcpy(static_cast<char*>(pass.y) + pass.keep[r] * hidden, y + r * hidden, hidden);
  return 0;
}

}  // namespace penstock

extern "C" {

// 1: a place is not in the arena, 2: the layout reads behind it. Then y means nothing, and for 1 nothing was placed.
int penstock_layer(const penstock::Layer* layer, const penstock::Pass* pass, int bf16, int threads) {
  return penstock::run(*layer, *pass, bf16, threads);
}
}
