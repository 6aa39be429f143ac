// The two products of attention for one tile of keys, blocked in registers: queries by keys, and
// weights by values. Sizes are multiples of 16; with bfloat16 dot products of 32.
#pragma once

#include "vectors.h"

namespace penstock {

constexpr int TILE = 64;   // keys at once
constexpr int AHEAD = 32;  // keys
constexpr int MANY = 8;    // query rows from which on keys are turned first

// The keys of a row are read once and end soon: the CPU's own prefetcher is too late for them.
// (Inlined: GCC takes a function that only prefetches for one that does nothing, and drops it.)
template <typename T>
INLINE void fetch(const T* p, int size) {
  for (int i = 0; i < size; i += 64 / int(sizeof(T))) __builtin_prefetch(p + i, 0, 3);
}

// Scores [rows, TILE] of MR query rows and n keys. Reads no key behind the last; what it writes
// behind column n means nothing.
template <int MR>
INLINE void scores_block(const float* q, int q_row, const float* k, ptrdiff_t k_row, int n, int size,
                         bool ahead, float* out) {
  constexpr int NR = LANES / MR;
  for (int j = 0; j < n; j += NR) {
    const float* key[NR];
    for (int i = 0; i < NR; i++) key[i] = k + (j + i < n ? j + i : n - 1) * k_row;
    if (ahead)
      for (int i = 0; i < NR; i++) fetch(key[i] + AHEAD * k_row, size);
    Floats acc[LANES] = {};
    for (int d = 0; d < size; d += LANES) {
      Floats row[MR];
#pragma GCC unroll 4
      for (int m = 0; m < MR; m++) row[m] = load(q + m * q_row + d);
#pragma GCC unroll 16
      for (int i = 0; i < NR; i++) {
        Floats x = load(key[i] + d);
#pragma GCC unroll 4
        for (int m = 0; m < MR; m++) acc[m * NR + i] += row[m] * x;
      }
    }
    Floats r = sums(acc);
    for (int m = 0; m < MR; m++) memcpy(out + m * TILE + j, reinterpret_cast<float*>(&r) + m * NR, NR * 4);
  }
}

// acc [rows, acc_row] = acc * keep + weights [rows, TILE] x values [n, 16 * NV].
template <int MR, int NV>
INLINE void values_block(const float* p, const float* v, ptrdiff_t v_row, int n, const float* keep,
                         bool ahead, float* acc, int acc_row) {
  Floats sum[MR][NV];
#pragma GCC unroll 4
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int c = 0; c < NV; c++) sum[m][c] = load(acc + m * acc_row + c * LANES) * keep[m];
  for (int j = 0; j < n; j++) {
    if (ahead) fetch(v + (j + AHEAD) * v_row, NV * LANES);
    Floats x[NV];
#pragma GCC unroll 4
    for (int c = 0; c < NV; c++) x[c] = load(v + j * v_row + c * LANES);
#pragma GCC unroll 4
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
      for (int c = 0; c < NV; c++) sum[m][c] += x[c] * p[m * TILE + j];
  }
#pragma GCC unroll 4
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int c = 0; c < NV; c++) store(acc + m * acc_row + c * LANES, sum[m][c]);
}

#ifdef PENSTOCK_DOT_BF16

INLINE __m512bh pairs(const uint16_t* p) { return (__m512bh)_mm512_loadu_si512(p); }

template <int MR>
INLINE void scores_block(const uint16_t* q, int q_row, const uint16_t* k, ptrdiff_t k_row, int n,
                         int size, bool ahead, float* out) {
  constexpr int NR = LANES / MR;
  for (int j = 0; j < n; j += NR) {
    const uint16_t* key[NR];
    for (int i = 0; i < NR; i++) key[i] = k + (j + i < n ? j + i : n - 1) * k_row;
    if (ahead)
      for (int i = 0; i < NR; i++) fetch(key[i] + AHEAD * k_row, size);
    Floats acc[LANES] = {};
    for (int d = 0; d < size; d += 2 * LANES) {
      __m512bh row[MR];
#pragma GCC unroll 4
      for (int m = 0; m < MR; m++) row[m] = pairs(q + m * q_row + d);
#pragma GCC unroll 16
      for (int i = 0; i < NR; i++) {
        __m512bh x = pairs(key[i] + d);
#pragma GCC unroll 4
        for (int m = 0; m < MR; m++)
          acc[m * NR + i] = (Floats)_mm512_dpbf16_ps((__m512)acc[m * NR + i], row[m], x);
      }
    }
    Floats r = sums(acc);
    for (int m = 0; m < MR; m++) memcpy(out + m * TILE + j, reinterpret_cast<float*>(&r) + m * NR, NR * 4);
  }
}

// Two keys at once: their values are interleaved, which leaves each 32 columns of `acc` in the order
// of `ordered`. `p` is zero behind the last key.
template <int MR, int NV>
INLINE void values_block(const uint16_t* p, const uint16_t* v, ptrdiff_t v_row, int n, const float* keep,
                         bool ahead, float* acc, int acc_row) {
  static_assert(NV % 2 == 0, "32 columns are interleaved at once");
  Floats sum[MR][NV];
#pragma GCC unroll 4
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int c = 0; c < NV; c++) sum[m][c] = load(acc + m * acc_row + c * LANES) * keep[m];
  for (int j = 0; j < n; j += 2) {
    const uint16_t* first = v + j * v_row;
    const uint16_t* second = j + 1 < n ? first + v_row : first;
    if (ahead)
      for (int i = 0; i < 2; i++) fetch(first + (AHEAD + i) * v_row, NV * LANES);
    __m512bh x[NV];
#pragma GCC unroll 4
    for (int c = 0; c < NV; c += 2) {
      __m512i a = _mm512_loadu_si512(first + c * LANES), b = _mm512_loadu_si512(second + c * LANES);
      x[c] = (__m512bh)_mm512_unpacklo_epi16(a, b);
      x[c + 1] = (__m512bh)_mm512_unpackhi_epi16(a, b);
    }
#pragma GCC unroll 4
    for (int m = 0; m < MR; m++) {
      int32_t two;
      memcpy(&two, p + m * TILE + j, 4);
      __m512bh weight = (__m512bh)_mm512_set1_epi32(two);
#pragma GCC unroll 4
      for (int c = 0; c < NV; c++) sum[m][c] = (Floats)_mm512_dpbf16_ps((__m512)sum[m][c], weight, x[c]);
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int c = 0; c < NV; c++) store(acc + m * acc_row + c * LANES, sum[m][c]);
}

// From the order in which interleaved values were summed to that of the columns.
INLINE void ordered(const float* acc, Floats* low, Floats* high) {
  Floats a = load(acc), b = load(acc + LANES);
  *low = __builtin_shuffle(a, b, Words{0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23});
  *high = __builtin_shuffle(a, b, Words{8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31});
}

#endif

// A word is a float or two bfloat16; so many numbers of it are one.
template <typename T>
constexpr int EACH = 4 / sizeof(T);

// n keys as [size / EACH, TILE] words.
template <typename T>
static void turn(const T* k, ptrdiff_t k_row, int n, int size, float* to) {
  for (int j = 0; j < n; j += LANES)
    for (int d = 0; d < size; d += LANES * EACH<T>) {
      Floats r[LANES];
#pragma GCC unroll 16
      for (int i = 0; i < LANES; i++) memcpy(&r[i], k + (j + i < n ? j + i : n - 1) * k_row + d, sizeof(Floats));
      transpose(r);
#pragma GCC unroll 16
      for (int i = 0; i < LANES; i++) store(to + (d / EACH<T> + i) * TILE + j, r[i]);
    }
}

INLINE Floats add_word(const float* q, Floats k, Floats sum) { return sum + k * *q; }

#ifdef PENSTOCK_DOT_BF16
INLINE Floats add_word(const uint16_t* q, Floats k, Floats sum) {
  int32_t two;
  memcpy(&two, q, 4);
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(two), (__m512bh)k);
}
#endif

// Scores [MR, TILE] of query rows and NV * 16 turned keys.
template <int MR, int NV, typename T>
INLINE void turned_block(const T* q, int q_row, const float* turned, int size, float* out) {
  Floats acc[MR][NV] = {};
#pragma GCC unroll 4
  for (int d = 0; d < size; d += EACH<T>) {
    Floats k[NV];
#pragma GCC unroll 4
    for (int c = 0; c < NV; c++) k[c] = load(turned + d / EACH<T> * TILE + c * LANES);
#pragma GCC unroll 4
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
      for (int c = 0; c < NV; c++) acc[m][c] = add_word(q + m * q_row + d, k[c], acc[m][c]);
  }
#pragma GCC unroll 4
  for (int m = 0; m < MR; m++)
#pragma GCC unroll 4
    for (int c = 0; c < NV; c++) store(out + m * TILE + c * LANES, acc[m][c]);
}

// As `scores`, of turned keys.
template <typename T>
static void turned_scores(const T* q, int q_row, int rows, const float* turned, int n, int size, float* out) {
  int m = 0;
  for (; m + 4 <= rows; m += 4)
    if (n > TILE / 2)
      turned_block<4, 4>(q + m * q_row, q_row, turned, size, out + m * TILE);
    else
      turned_block<4, 2>(q + m * q_row, q_row, turned, size, out + m * TILE);
  for (; m < rows; m++) turned_block<1, 4>(q + m * q_row, q_row, turned, size, out + m * TILE);
}

// What follows in memory is fetched by the first rows, for all.
template <typename T>
static void scores(const T* q, int q_row, int rows, const T* k, ptrdiff_t k_row, int n, int size, float* out) {
  int m = 0;
  for (; m + 4 <= rows; m += 4)
    scores_block<4>(q + m * q_row, q_row, k, k_row, n, size, m == 0, out + m * TILE);
  for (; m + 2 <= rows; m += 2)
    scores_block<2>(q + m * q_row, q_row, k, k_row, n, size, m == 0, out + m * TILE);
  for (; m < rows; m++) scores_block<1>(q + m * q_row, q_row, k, k_row, n, size, m == 0, out + m * TILE);
}

template <int MR, typename T>
INLINE void values_rows(const T* p, const T* v, ptrdiff_t v_row, int n, int size, const float* keep, bool ahead,
                        float* acc) {
  int c = 0;
  for (; c + 64 <= size; c += 64) values_block<MR, 4>(p, v + c, v_row, n, keep, ahead, acc + c, size);
  for (; c + 32 <= size; c += 32) values_block<MR, 2>(p, v + c, v_row, n, keep, ahead, acc + c, size);
  if constexpr (sizeof(T) == 4)
    for (; c < size; c += LANES) values_block<MR, 1>(p, v + c, v_row, n, keep, ahead, acc + c, size);
}

template <typename T>
static void add_values(const T* p, int rows, const T* v, ptrdiff_t v_row, int n, int size, const float* keep,
                       float* acc) {
  int m = 0;
  for (; m + 4 <= rows; m += 4)
    values_rows<4>(p + m * TILE, v, v_row, n, size, keep + m, m == 0, acc + m * size);
  for (; m + 2 <= rows; m += 2)
    values_rows<2>(p + m * TILE, v, v_row, n, size, keep + m, m == 0, acc + m * size);
  for (; m < rows; m++) values_rows<1>(p + m * TILE, v, v_row, n, size, keep + m, m == 0, acc + m * size);
}

}  // namespace penstock
