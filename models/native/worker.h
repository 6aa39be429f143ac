// One thread's work on one task: its queries' maxima, sums and weighted values, while it walks over
// tiles of keys (FlashAttention, arXiv:2205.14135).
#pragma once

#include <cmath>
#include <cstdlib>
#include <type_traits>

#include "plan.h"
#include "products.h"

namespace penstock {

struct Call {
  const void *query, *keys, *values;
  void* out;                        // [T, H, value_size]
  int64_t query_head, query_token;  // strides, in elements
  int64_t key_head, key_position, value_head, value_position;
  int64_t positions;  // of the arena
  int32_t key_size, value_size;
  int32_t bf16, window;    // window 0: none
  float scaling, softcap;  // softcap 0: none
};

constexpr float LOG2_E = 1.44269504088896341f;

template <typename T>
struct Array {
  T* data = nullptr;
  size_t size = 0;
  Array() = default;
  Array(const Array&) = delete;
  ~Array() { free(data); }
  T* of(size_t n) {
    if (n > size) {
      free(data);
      size = n;
      data = static_cast<T*>(aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64));
    }
    return data;
  }
};

struct Memory {
  Array<float> query, scores, acc, tops, sums, keep, tile, turned;
  Array<uint16_t> half_query, half_weights, half_tile;
  Array<int32_t> low, high;
};

#ifdef PENSTOCK_DOT_BF16
constexpr bool DOT = true;
#else
constexpr bool DOT = false;
#endif

template <typename T>
class Worker {
 public:
  // `saved` [states * H, state_size]: what tokens have from beginnings that they share.
  Worker(const Plan& plan, const Call& call, float* saved, Memory& memory)
      : plan(plan), l(plan.layout), call(call), saved(saved), m(memory), group(plan.group),
        half_keys(DOT && sizeof(T) == 2 && call.key_size % 32 == 0),
        half_values(DOT && sizeof(T) == 2 && call.value_size % 32 == 0),
        key_size(round_up(call.key_size, LANES)), value_size(round_up(call.value_size, LANES)) {}

  static int64_t state_size(const Call& call) { return round_up(call.value_size, LANES) + LANES; }

  void run(const std::vector<Task>& tasks, int i) {
    const Task& task = tasks[i];
    if (i + plan.threads < int(tasks.size())) prefetch(tasks[i + plan.threads]);
    token = plan.order.data() + task.first;
    head = task.head;
    rows = task.count * group;
    begin(task.own);
    if (task.prefix) walk(l.prefix_start[token[0]], true);
    if (task.own) {
      walk(l.own_start[token[0]], false);
      for (int i = 0; i < task.count; i++) walk_extras(i);
      finish();
    } else {
      save();
    }
  }

 private:
  const Plan& plan;
  const Layout& l;
  const Call& call;
  float* saved;
  Memory& m;
  const int group;
  const bool half_keys, half_values;  // by bfloat16 dot products
  const int key_size, value_size;     // padded to whole vectors
  const int32_t* token = nullptr;
  int head = 0, rows = 0;  // row r: query head r % group of token r / group

  // ---- queries and states ----

  int64_t state_of(int r) const {
    const int64_t heads = plan.heads * group;
    return (plan.state[token[r / group]] * heads + head * group + r % group) * state_size(call);
  }

  void begin(bool resume) {
    m.scores.of(rows * TILE);
    m.half_weights.of(rows * TILE);
    m.low.of(rows);
    m.high.of(rows);
    m.keep.of(rows);
    m.query.of(rows * key_size);
    m.half_query.of(rows * key_size);
    float *acc = m.acc.of(rows * value_size), *tops = m.tops.of(rows), *sums = m.sums.of(rows * LANES);
    for (int r = 0; r < rows; r++) {
      const int t = token[r / group], h = head * group + r % group;
      const T* from = static_cast<const T*>(call.query) + h * call.query_head + t * call.query_token;
      if (half_keys)
        memcpy(m.half_query.data + r * key_size, from, key_size * sizeof(T));
      else
        widen(from, call.key_size, m.query.data + r * key_size, key_size);
      if (resume && plan.state[t] >= 0) {
        const float* state = saved + state_of(r);
        memcpy(acc + r * value_size, state, value_size * sizeof(float));
        tops[r] = state[value_size];
        store(sums + r * LANES, Floats{state[value_size + 1]});
      } else {
        memset(acc + r * value_size, 0, value_size * sizeof(float));
        tops[r] = -INFINITY;
        store(sums + r * LANES, Floats{});
      }
    }
  }

  void save() {
    for (int r = 0; r < rows; r++) {
      float* state = saved + state_of(r);
      memcpy(state, m.acc.data + r * value_size, value_size * sizeof(float));
      state[value_size] = m.tops.data[r];
      state[value_size + 1] = sum(load(m.sums.data + r * LANES));
    }
  }

  void finish() {
    const int size = call.value_size;
    for (int r = 0; r < rows; r++) {
      const int64_t row = int64_t(token[r / group]) * plan.heads * group + head * group + r % group;
      T* to = static_cast<T*>(call.out) + row * size;
      const float* acc = m.acc.data + r * value_size;
      const float scale = 1.0f / sum(load(m.sums.data + r * LANES));
      int d = 0;
#ifdef PENSTOCK_DOT_BF16
      for (; half_values && d < size; d += 2 * LANES) {
        Floats low, high;
        ordered(acc + d, &low, &high);
        store(to + d, low * scale);
        store(to + d + LANES, high * scale);
      }
#endif
      for (; d + LANES <= size; d += LANES) store(to + d, load(acc + d) * scale);
      for (; d < size; d++) put(to + d, acc[d] * scale);
    }
  }

  // ---- keys ----

  // The first keys of a task that comes next: products fetch only what follows them.
  void prefetch(const Task& task) const {
    const int t = plan.order[task.first];
    const int64_t start = task.prefix ? l.prefix_start[t] : l.own_start[t];
    const int n = std::min(AHEAD, task.prefix ? l.prefix_length[t] : l.visible[t]);
    const T* keys = static_cast<const T*>(call.keys) + task.head * call.key_head;
    const T* values = static_cast<const T*>(call.values) + task.head * call.value_head;
    for (int64_t i = start; i < start + n; i++) {
      fetch(keys + i * call.key_position, call.key_size);
      fetch(values + i * call.value_position, call.value_size);
    }
  }

  void walk(int64_t start, bool prefix) {
    int32_t *low = m.low.data, *high = m.high.data;
    int begin = INT32_MAX, end = 0;
    for (int r = 0; r < rows; r++) {
      const int t = token[r / group], length = l.prefix_length[t];
      low[r] = call.window ? std::max(0, l.place[t] - call.window + 1 - (prefix ? 0 : length)) : 0;
      high[r] = prefix ? length : l.visible[t];
      begin = std::min(begin, low[r]);
      end = std::max(end, high[r]);
    }
    for (int j = begin; j < end; j += TILE) {
      const int n = std::min(TILE, end - j);
      int first = 0, last = rows;
      while (first < last && (high[first] <= j || low[first] >= j + n)) first++;
      while (first < last && (high[last - 1] <= j || low[last - 1] >= j + n)) last--;
      if (first < last) tile(start + j, nullptr, n, j, first, last);
    }
  }

  void walk_extras(int i) {
    const int t = token[i], count = l.extra_start[t + 1] - l.extra_start[t];
    const int behind = l.prefix_length[t] + l.visible[t];
    for (int r = i * group; r < (i + 1) * group; r++) {
      m.low.data[r] = call.window ? std::max(0, l.place[t] - call.window + 1 - behind) : 0;
      m.high.data[r] = count;
    }
    for (int j = 0; j < count; j += TILE)
      tile(0, l.extra + l.extra_start[t] + j, std::min(TILE, count - j), j, i * group, (i + 1) * group);
  }

  // n keys from `start`, or at the positions `where`, for the rows from `first` to `last`. The first
  // of the keys is number `offset` for `low` and `high`.
  void tile(int64_t start, const int32_t* where, int n, int offset, int first, int last) {
    const T* keys = static_cast<const T*>(call.keys) + head * call.key_head;
    const T* values = static_cast<const T*>(call.values) + head * call.value_head;
    float *out = m.scores.data + first * TILE, *acc = m.acc.data + first * value_size;
    const float* keep = m.keep.data + first;
    const int count = last - first;
    auto score = [&](const auto* query, auto& scratch) {
      int64_t row = call.key_position;
      const auto* k = rows_of(keys, start, where, n, call.key_size, key_size, scratch, &row);
      if (count < MANY) {
        scores(query + first * key_size, key_size, count, k, row, n, key_size, out);
      } else {
        float* turned = m.turned.of(TILE * key_size);
        turn(k, row, n, key_size, turned);
        turned_scores(query + first * key_size, key_size, count, turned, n, key_size, out);
      }
    };
    auto add = [&](const auto* weights, auto& scratch) {
      int64_t row = call.value_position;
      const auto* v = rows_of(values, start, where, n, call.value_size, value_size, scratch, &row);
      add_values(weights + first * TILE, count, v, row, n, value_size, keep, acc);
    };
    if constexpr (DOT && sizeof(T) == 2) {
      half_keys ? score(m.half_query.data, m.half_tile) : score(m.query.data, m.tile);
      weigh(first, last, n, offset);
      half_values ? add(m.half_weights.data, m.half_tile) : add(m.scores.data, m.tile);
    } else {
      score(m.query.data, m.tile);
      weigh(first, last, n, offset);
      add(m.scores.data, m.tile);
    }
  }

  // Where they lie when that is right, else a copy: widened, padded, side by side.
  template <typename W>
  const W* rows_of(const T* from, int64_t start, const int32_t* where, int n, int size, int padded,
                   Array<W>& scratch, int64_t* row) {
    if constexpr (std::is_same_v<T, W>)
      if (!where && size == padded) return from + start * *row;
    W* to = scratch.of(TILE * padded);
    for (int i = 0; i < n; i++) {
      const T* one = from + (where ? where[i] : start + i) * *row;
      if constexpr (sizeof(W) == 2)
        memcpy(to + i * padded, one, size * sizeof(W));
      else
        widen(one, size, to + i * padded, padded);
    }
    *row = padded;
    return to;
  }

  static void widen(const T* from, int size, float* to, int padded) {
    int d = 0;
    for (; d + LANES <= size; d += LANES) store(to + d, load(from + d));
    for (; d < padded; d++) to[d] = d < size ? to_float(from[d]) : 0.0f;
  }

  // Scores to weights, by powers of two; `keep`: what to multiply a row's former values by. Sums stay
  // in lanes until a row ends.
  void weigh(int first, int last, int n, int offset) {
    const float scaling = call.scaling * LOG2_E;
    for (int r = first; r < last; r++) {
      float *s = m.scores.data + r * TILE, *sums = m.sums.data + r * LANES;
      const int low = m.low.data[r] - offset, high = std::min(m.high.data[r] - offset, n);
      const bool all_seen = low <= 0 && high == round_up(n, LANES) && call.softcap == 0 && scaling > 0;
      const float old = m.tops.data[r], times = all_seen ? scaling : 1.0f;
      const float top = all_seen ? std::max(old, top_of(s, n) * scaling) : mask(s, n, low, high, old);
      const float zero = top == -INFINITY ? 0.0f : top;  // of a row that sees nothing yet
      Floats added{};
      for (int j = 0; j < n; j += LANES) {
        const Floats x = exp2(load(s + j) * times - zero);
        added += x;
        if (half_values)
          store(m.half_weights.data + r * TILE + j, x);
        else
          store(s + j, x);
      }
      m.keep.data[r] = old == top ? 1.0f : exp2(old - zero);
      store(sums, load(sums) * m.keep.data[r] + added);
      m.tops.data[r] = top;
    }
  }

  static float top_of(const float* s, int n) {
    Floats tops = load(s);
    for (int j = LANES; j < n; j += LANES) tops = larger(load(s + j), tops);
    return largest(tops);
  }

  // Scale a row's scores, hide what it does not see; the largest of them and of `old`.
  float mask(float* s, int n, int low, int high, float old) const {
    const Words lanes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Floats tops = all(old);
    for (int j = 0; j < n; j += LANES) {
      Floats x = load(s + j) * call.scaling;
      if (call.softcap != 0) x = tanh(x / call.softcap) * call.softcap;
      x *= LOG2_E;
      if (low > j || high < j + LANES) {
        const Words at = lanes + j;
        x = (at >= low) & (at < high) ? x : all(-INFINITY);
      }
      store(s + j, x);
      tops = larger(x, tops);
    }
    return largest(tops);
  }
};

}  // namespace penstock

extern "C" int penstock_attend(const void* plan, const penstock::Call* call);
