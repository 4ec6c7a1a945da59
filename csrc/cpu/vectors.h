// Vectors of the widest kind the file is compiled for, and the few operations on them that attention needs.
//
// Written with the vector extensions of GCC and Clang, so that one source serves every instruction set. All of it has
// internal linkage: a copy compiled for AVX-512 must never be linked into the code for older processors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "bfloat16.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace fastamr {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;
#endif

#define FASTAMR_INLINE inline __attribute__((always_inline))
#define FASTAMR_UNROLL _Pragma("GCC unroll 16")

template <class C>
struct Lanes;

template <>
struct Lanes<float> {
  static constexpr int count = kVectorBytes / 4;
  typedef float Vector __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Bits __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t Unsigned __attribute__((vector_size(kVectorBytes)));
  typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
};

template <>
struct Lanes<double> {
  static constexpr int count = kVectorBytes / 8;
  typedef double Vector __attribute__((vector_size(kVectorBytes)));
  typedef int64_t Bits __attribute__((vector_size(kVectorBytes)));
};

template <class C>
using Vector = typename Lanes<C>::Vector;
template <class C>
using Bits = typename Lanes<C>::Bits;

template <class C>
FASTAMR_INLINE Vector<C> splat(C value) {
  return value - Vector<C>{};
}

using Halves = typename Lanes<float>::Halves;

// 16-bit integers to 32 bits and back, the upper half dropped. For AVX-512 GCC's own conversion takes three
// instructions more; with the full mask, which costs none, GCC 12 does not warn of uninitialised lanes.
FASTAMR_INLINE Bits<float> widened(Halves halves) {
#if defined(__AVX512F__)
  return (Bits<float>)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)halves);
#else
  return __builtin_convertvector(halves, Bits<float>);
#endif
}

FASTAMR_INLINE Halves narrowed(Bits<float> bits) {
#if defined(__AVX512F__)
  return (Halves)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)bits);
#else
  return __builtin_convertvector(bits, Halves);
#endif
}

// From memory of the storage type T to a vector of the compute type C, and back.
template <class C, class T>
FASTAMR_INLINE Vector<C> load(const T* from) {
  if constexpr (sizeof(T) == sizeof(C)) {
    Vector<C> value;
    __builtin_memcpy(&value, from, sizeof(value));
    return value;
  } else {
    Halves halves;
    __builtin_memcpy(&halves, from, sizeof(halves));
    return (Vector<float>)(widened(halves) << 16);
  }
}

template <class C, class T>
FASTAMR_INLINE void store(T* to, Vector<C> value) {
  if constexpr (sizeof(T) == sizeof(C)) {
    __builtin_memcpy(to, &value, sizeof(value));
  } else {
    const Bits<float> bits = (Bits<float>)value;
    // To nearest, ties to even; the added half would carry a NaN's payload into the sign, so NaN goes by itself.
    using Unsigned = Lanes<float>::Unsigned;
    const Bits<float> rounded = (Bits<float>)((Unsigned)bits + (Unsigned)(((bits >> 16) & 1) + 0x7fff)) >> 16;
    const Bits<float> result = value == value ? rounded : (bits >> 16) | 0x40;
    const Halves halves = narrowed(result);
    __builtin_memcpy(to, &halves, sizeof(halves));
  }
}

// Lanes I... of the concatenation of a and b.
template <class C, size_t... I>
FASTAMR_INLINE Vector<C> shuffle(Vector<C> a, Vector<C> b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, static_cast<int>(I)...);
#else
  return __builtin_shuffle(a, b, Bits<C>{static_cast<decltype(Bits<C>{}[0] + 0)>(I)...});
#endif
}

template <class C, int Step, size_t... I>
FASTAMR_INLINE Vector<C> exchange(Vector<C> value, std::index_sequence<I...>) {
  return shuffle<C, (I ^ Step)...>(value, value);
}

template <class C, int First, size_t... I>
FASTAMR_INLINE Vector<C> interleave(Vector<C> a, Vector<C> b, std::index_sequence<I...>) {
  return shuffle<C, (First + I / 2 + I % 2 * sizeof...(I))...>(a, b);
}

// Combine all lanes by a tree whose shape does not depend on anything but the number of lanes.
template <class C, int Step = Lanes<C>::count / 2, class Function>
FASTAMR_INLINE C across(Vector<C> value, Function combine) {
  if constexpr (Step == 0) {
    return value[0];
  } else {
    return across<C, Step / 2>(
        combine(value, exchange<C, Step>(value, std::make_index_sequence<Lanes<C>::count>())), combine);
  }
}

template <class C>
FASTAMR_INLINE C sum_of(Vector<C> value) {
  return across<C>(value, [](Vector<C> a, Vector<C> b) { return a + b; });
}

template <class C>
FASTAMR_INLINE Vector<C> larger(Vector<C> a, Vector<C> b) {
  return a > b ? a : b;
}

template <class C>
FASTAMR_INLINE C largest_of(Vector<C> value) {
  return across<C>(value, [](Vector<C> a, Vector<C> b) { return larger<C>(a, b); });
}

// Transpose a square tile in registers: log2(lanes) rounds that interleave the rows' upper and lower halves.
template <class C>
FASTAMR_INLINE void transpose(Vector<C> (&rows)[Lanes<C>::count]) {
  constexpr int count = Lanes<C>::count;
  using Sequence = std::make_index_sequence<count>;
  FASTAMR_UNROLL
  for (int round = 1; round < count; round *= 2) {
    Vector<C> next[count];
    FASTAMR_UNROLL
    for (int i = 0; i < count / 2; ++i) {
      next[2 * i] = interleave<C, 0>(rows[i], rows[i + count / 2], Sequence());
      next[2 * i + 1] = interleave<C, count / 2>(rows[i], rows[i + count / 2], Sequence());
    }
    FASTAMR_UNROLL
    for (int i = 0; i < count; ++i) rows[i] = next[i];
  }
}

// Numbers of the exponential: x = n * ln 2 + r with |r| <= ln 2 / 2, e^r by its Taylor series (whose first term left
// out is below 0.1 ulp), 2^n by the exponent bits. `high` has so few bits that n * high is exact.
template <class C>
struct Exponential;

template <>
struct Exponential<float> {
  static constexpr float lowest = -87.3365f, rounder = 12582912.0f;
  static constexpr float high = 0.693359375f, low = -2.12194440e-4f;
  static constexpr int degree = 7, mantissa = 23, bias = 127;
};

template <>
struct Exponential<double> {
  static constexpr double lowest = -708.396, rounder = 6755399441055744.0;
  static constexpr double high = 6.93145751953125e-1, low = 1.42860682030941723212e-6;
  static constexpr int degree = 13, mantissa = 52, bias = 1023;
};

constexpr double kLog2E = 1.4426950408889634074;

constexpr double inverse_factorial(int n) { return n < 2 ? 1.0 : inverse_factorial(n - 1) / n; }

// e^x within 2 ulp for x up to 88 (double: 709); -inf and results below the normal numbers give exactly 0 (a denormal
// result costs the processor a hundred cycles), NaN stays NaN. Adding and subtracting `rounder` rounds to an integer,
// which is why this file must not be compiled with -fassociative-math.
template <class C>
FASTAMR_INLINE Vector<C> exponential(Vector<C> x) {
  using N = Exponential<C>;
  const Bits<C> vanishes = x < N::lowest;
  x = vanishes ? Vector<C>{} : x;
  const Vector<C> shifted = x * static_cast<C>(kLog2E) + N::rounder;
  const Vector<C> n = shifted - N::rounder;
  const Vector<C> r = (x - n * N::high) - n * N::low;
  Vector<C> power = splat<C>(static_cast<C>(inverse_factorial(N::degree)));
  FASTAMR_UNROLL
  for (int k = N::degree - 1; k >= 0; --k) power = power * r + static_cast<C>(inverse_factorial(k));
  const Bits<C> exponent = (Bits<C>)shifted - (Bits<C>)splat<C>(N::rounder);
  const Vector<C> result = power * (Vector<C>)((exponent + N::bias) << N::mantissa);
  return vanishes ? Vector<C>{} : result;
}

}  // namespace
}  // namespace fastamr
