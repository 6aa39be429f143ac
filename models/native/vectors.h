// Vectors of 16 floats on any CPU, by GCC's vector extensions, and what attention needs of them.
// Where the CPU has no 512-bit registers the compiler splits them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define PENSTOCK_DOT_BF16 1
#endif

#define ALWAYS inline __attribute__((always_inline))
#define INLINE static ALWAYS

namespace penstock {

constexpr int LANES = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef float FloatsAt __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t HalvesAt __attribute__((vector_size(32), aligned(2), may_alias));

INLINE int round_up(int n, int step) { return (n + step - 1) / step * step; }

INLINE Floats all(float x) { return x - Floats{}; }  // x + 0 would be computed, for the sake of -0
INLINE Floats load(const float* p) { return *reinterpret_cast<const FloatsAt*>(p); }
INLINE void store(float* p, Floats x) { *reinterpret_cast<FloatsAt*>(p) = x; }

// bfloat16 is the upper half of a float.
INLINE Floats load(const uint16_t* p) {
  Halves h = *reinterpret_cast<const HalvesAt*>(p);
  return (Floats)(__builtin_convertvector(h, Words) << 16);
}

INLINE Halves to_bf16(Floats x) {
#ifdef PENSTOCK_DOT_BF16
  return (Halves)_mm512_cvtneps_pbh((__m512)x);
#else
  typedef uint32_t Bits __attribute__((vector_size(64)));
  Bits u = (Bits)x;
  u += 0x7fffu + ((u >> 16) & 1u);  // to nearest, ties to even
  u = x == x ? u >> 16 : Bits{} + 0x7fc0u;
  return __builtin_convertvector(u, Halves);
#endif
}

INLINE void store(uint16_t* p, Floats x) { *reinterpret_cast<HalvesAt*>(p) = to_bf16(x); }

INLINE float to_float(float x) { return x; }
INLINE float to_float(uint16_t h) {
  uint32_t u = uint32_t(h) << 16;
  float x;
  memcpy(&x, &u, 4);
  return x;
}
INLINE void put(float* p, float x) { *p = x; }
INLINE void put(uint16_t* p, float x) { *p = to_bf16(all(x))[0]; }

INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// Halves onto halves: the four steps from 16 lanes to one.
#define PENSTOCK_FOLD(x, op)                                                                        \
  x = op(x, __builtin_shuffle(x, Words{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7}));     \
  x = op(x, __builtin_shuffle(x, Words{4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11}));     \
  x = op(x, __builtin_shuffle(x, Words{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13}));     \
  x = op(x, __builtin_shuffle(x, Words{1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14}));

INLINE Floats plus(Floats a, Floats b) { return a + b; }

INLINE float sum(Floats x) {
  PENSTOCK_FOLD(x, plus)
  return x[0];
}

INLINE float largest(Floats x) {
  PENSTOCK_FOLD(x, larger)
  return x[0];
}

// Cephes' expf: 2e-7 relative; from 1e-38 up to 1e38, NaN stays NaN.
INLINE Floats exp(Floats x) {
  x = x < all(-87.3f) ? all(-87.3f) : x;
  x = x > all(88.3f) ? all(88.3f) : x;
  const Floats magic = all(12582912.0f);
  Floats n = (x * 1.44269504088896341f + magic) - magic;  // to the nearest integer
  Floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Floats p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  Words power = (__builtin_convertvector(n, Words) + 127) << 23;
  return p * (Floats)power;
}

INLINE float exp(float x) { return exp(all(x))[0]; }

// 2^x for x up to 127: 1e-7 relative; 0 below -126, at the latest below -149; NaN stays NaN.
INLINE Floats exp2(Floats x) {
#ifdef __AVX512F__
  x = x < all(-200.0f) ? all(-200.0f) : x;
  const Floats n = (Floats)_mm512_roundscale_ps((__m512)x, 0), r = x - n;  // n: to the nearest integer
#else
  const Floats magic = all(12582912.0f), whole = x < all(-126.0f) ? all(-126.0f) : x;
  const Floats n = (whole + magic) - magic, r = whole - n;
#endif
  Floats p = all(1.534581243e-4f);
  p = p * r + 1.339993090e-3f;
  p = p * r + 9.618489072e-3f;
  p = p * r + 5.550328642e-2f;
  p = p * r + 2.402264625e-1f;
  p = p * r + 6.931471825e-1f;
  p = p * r + 1.0f;
#ifdef __AVX512F__
  return (Floats)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  const Words power = (__builtin_convertvector(n, Words) + 127) << 23;
  return x < all(-126.0f) ? Floats{} : p * (Floats)power;
#endif
}

INLINE float exp2(float x) { return exp2(all(x))[0]; }

INLINE Floats tanh(Floats x) {
  Floats big = 1.0f - 2.0f / (exp(x * 2.0f) + 1.0f);
  Floats y = x * x;  // the series where the difference above would cancel
  Floats p = all(62.0f / 2835) * y - 17.0f / 315;
  p = p * y + 2.0f / 15;
  p = p * y - 1.0f / 3;
  Floats small = x + x * y * p;
  return y < all(0.04f) ? small : big;
}

// Lane i of the result is the sum of a[i]'s lanes.
INLINE Floats sums(const Floats* a) {
  Floats t[8], u[4], v[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    Floats x = a[2 * i], y = a[2 * i + 1];
    t[i] = __builtin_shuffle(x, y, Words{0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29}) +
           __builtin_shuffle(x, y, Words{2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31});
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    Floats x = t[2 * i], y = t[2 * i + 1];
    u[i] = __builtin_shuffle(x, y, Words{0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29}) +
           __builtin_shuffle(x, y, Words{2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
  }
  const Words even{0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};
  const Words odd{4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31};
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++)
    v[i] = __builtin_shuffle(u[2 * i], u[2 * i + 1], even) + __builtin_shuffle(u[2 * i], u[2 * i + 1], odd);
  return __builtin_shuffle(v[0], v[1], even) + __builtin_shuffle(v[0], v[1], odd);
}

// 16 rows of 16 words to 16 columns: halves of ever smaller blocks change places.
template <int S>
INLINE void exchange(Floats* r) {
  const Words lanes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const Words upper = (lanes & S) != 0;
  const Words first = upper ? lanes + (LANES - S) : lanes, second = upper ? lanes + LANES : lanes + S;
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++)
    if (!(i & S)) {
      const Floats a = r[i], b = r[i + S];
      r[i] = __builtin_shuffle(a, b, first);
      r[i + S] = __builtin_shuffle(a, b, second);
    }
}

INLINE void transpose(Floats* r) {
  exchange<8>(r);
  exchange<4>(r);
  exchange<2>(r);
  exchange<1>(r);
}

}  // namespace penstock
