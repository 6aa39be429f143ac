// A step's attention cut into tasks: some tokens of one block, or some tokens that share a beginning,
// for one key head. Made once a step; knows no tensor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace penstock {

constexpr int QUERIES = 32;  // query rows of a task, about; twice as many of a wide one

// See models/packed/layout.py; the arrays outlive the plan.
struct Layout {
  int tokens, blocks;
  const int32_t *block, *prefix_start, *prefix_length, *own_start, *visible, *place, *extra_start, *extra;
};

struct Task {
  int first, count;  // of `Plan::order`
  int head;          // of the keys
  bool prefix, own;  // which parts it reads; a prefix without the own part leaves its state behind
  int64_t cost;
};

struct Plan {
  Layout layout;
  int heads, group, threads;
  int64_t last_position = -1;      // highest of the arena that is read
  std::vector<int32_t> order;      // tokens
  std::vector<int32_t> state;      // for each token: its place among the saved states, or -1
  std::vector<Task> shared, tasks;  // all of `shared` come first
  int states = 0;
  int64_t cost = 0;                // of all tasks

  Plan(const Layout& l, int heads, int group, int threads)
      : layout(l), heads(heads), group(group), threads(threads), state(l.tokens, -1) {
    bound();
    share();
    for (int b = 0; b < l.blocks; b++) own(l.block[b], l.block[b + 1]);
    auto dearer = [](const Task& a, const Task& b) { return a.cost > b.cost; };
    std::stable_sort(shared.begin(), shared.end(), dearer);
    std::stable_sort(tasks.begin(), tasks.end(), dearer);
  }

  int tile() const { return std::max(1, QUERIES / group); }

 private:
  void bound() {
    const Layout& l = layout;
    for (int t = 0; t < l.tokens; t++) {
      last_position = std::max<int64_t>(last_position, int64_t(l.own_start[t]) + l.visible[t] - 1);
      if (l.prefix_length[t])
        last_position = std::max<int64_t>(last_position, int64_t(l.prefix_start[t]) + l.prefix_length[t] - 1);
    }
    for (int e = 0; e < l.extra_start[l.tokens]; e++)
      last_position = std::max<int64_t>(last_position, l.extra[e]);
  }

  // Beginnings that tokens of more than one block share are read once for all of them.
  void share() {
    const Layout& l = layout;
    std::vector<int32_t> tokens, block(l.tokens);
    for (int b = 0; b < l.blocks; b++)
      for (int t = l.block[b]; t < l.block[b + 1]; t++) {
        block[t] = b;
        if (l.prefix_length[t]) tokens.push_back(t);
      }
    auto before = [&](int a, int b) {
      if (l.prefix_start[a] != l.prefix_start[b]) return l.prefix_start[a] < l.prefix_start[b];
      return l.prefix_length[a] < l.prefix_length[b];
    };
    std::stable_sort(tokens.begin(), tokens.end(), before);
    for (size_t i = 0, end; i < tokens.size(); i = end) {
      for (end = i + 1; end < tokens.size() && !before(tokens[i], tokens[end]);) end++;
      if (block[tokens[i]] == block[tokens[end - 1]]) continue;
      const int begin = int(order.size());
      for (size_t j = i; j < end; j++) {
        order.push_back(tokens[j]);
        state[tokens[j]] = states++;
      }
      cut(shared, begin, int(order.size()), true, false);
    }
  }

  void own(int begin, int end) {
    const int first = int(order.size());
    for (int t = begin; t < end; t++) order.push_back(t);
    const bool prefix = layout.prefix_length[begin] > 0 && state[begin] < 0;
    cut(tasks, first, int(order.size()), prefix, true);
  }

  void cut(std::vector<Task>& into, int begin, int end, bool prefix, bool own) {
    // A shared beginning is read again by each task; but every thread should have some.
    const bool wide = !own && (end - begin) * heads >= 8 * threads * tile();
    const int step = wide ? 2 * tile() : tile();
    for (int i = begin; i < end; i += step) {
      const int count = std::min(step, end - i), last = order[i + count - 1];
      const int64_t keys = (prefix ? layout.prefix_length[last] : 0) +
                           (own ? layout.visible[last] + layout.extra_start[last + 1] - layout.extra_start[last] : 0);
      const int64_t each = keys * (count * group + 2);
      for (int h = 0; h < heads; h++) into.push_back({i, count, h, prefix, own, each});
      cost += heads * each;
    }
  }
};

}  // namespace penstock
