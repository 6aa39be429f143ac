// Work of one parallel region, shared out so that nobody waits for a thread that was interrupted.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace penstock {

// Items 0 to `items` - 1. Each thread has as many, side by side, and takes them in order; one that has none left
// takes others' from the end. (OpenMP's dynamic schedule deals neighbours to different threads, which then write
// to the same lines of memory.)
class Shares {
 public:
  Shares(int64_t items, int threads) : shares(threads) {
    for (int t = 0; t < threads; t++) shares[t].left = uint64_t(items * (t + 1) / threads) << 32 | items * t / threads;
  }

  // The next item of a thread; -1 when all are taken.
  int64_t take(int thread) {
    const int threads = int(shares.size());
    for (int i = 0; i < threads; i++) {
      std::atomic<uint64_t>& left = shares[(thread + i) % threads].left;
      uint64_t seen = left;
      for (uint64_t first, last; first = uint32_t(seen), last = seen >> 32, first < last;) {
        const uint64_t after = i ? (last - 1) << 32 | first : last << 32 | (first + 1);
        if (left.compare_exchange_weak(seen, after)) return int64_t(i ? last - 1 : first);
      }
    }
    return -1;
  }

 private:
  struct alignas(64) Share {
    std::atomic<uint64_t> left;  // the first item in the lower half, and what is behind the last one
  };
  std::vector<Share> shares;
};

}  // namespace penstock
