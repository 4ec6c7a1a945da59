// The small matrix products of one head, blocked so that a block of the result stays in registers.
//
// Scratch matrices have two fixed row strides, one for rows over the head dimension and one for rows over the keys:
// every address is a base plus a constant. Both are odd numbers of cache lines, which spreads the rows over the
// cache's sets.
#pragma once

#include "vectors.h"

namespace fastamr {
namespace {

constexpr int kLargestKeys = 256;
constexpr int kLargestSize = 64;
constexpr int kKeyStride = kLargestKeys + 16;
constexpr int kHeadStride = kLargestSize + 16;

// Vectors of a block side by side, and rows: 24 (or 12) sums, the loaded vectors and one broadcast fill the registers.
constexpr int kBlockVectors = 2;
template <class C>
constexpr int kBlockRows = sizeof(C) == 8 ? 4 : kRegisters == 32 ? 12 : 6;

// out[r][c] (+)= sum over k of a[r * ARow + k * ADepth] * b[k * BRow + c] for R rows and N vectors of columns.
template <class C, int R, int N, int ARow, int ADepth, int BRow, int OutRow>
FASTAMR_INLINE void block(const C* a, const C* b, C* out, int depth, bool accumulate) {
  constexpr int lanes = Lanes<C>::count;
  Vector<C> sums[R][N] = {};
  if (accumulate) {
    FASTAMR_UNROLL
    for (int r = 0; r < R; ++r) {
      FASTAMR_UNROLL
      for (int n = 0; n < N; ++n) sums[r][n] = load<C>(out + r * OutRow + n * lanes);
    }
  }
#pragma GCC unroll 1
  for (int k = 0; k < depth; ++k) {
    Vector<C> right[N];
    FASTAMR_UNROLL
    for (int n = 0; n < N; ++n) right[n] = load<C>(b + k * BRow + n * lanes);
    FASTAMR_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vector<C> left = splat<C>(a[r * ARow + k * ADepth]);
      FASTAMR_UNROLL
      for (int n = 0; n < N; ++n) sums[r][n] += left * right[n];
    }
  }
  FASTAMR_UNROLL
  for (int r = 0; r < R; ++r) {
    FASTAMR_UNROLL
    for (int n = 0; n < N; ++n) store<C>(out + r * OutRow + n * lanes, sums[r][n]);
  }
}

// The last rows, fewer than a full block.
template <class C, int R, int N, int ARow, int ADepth, int BRow, int OutRow>
FASTAMR_INLINE void some_rows(const C* a, const C* b, C* out, int rows, int depth, bool accumulate) {
  if (rows == R) {
    block<C, R, N, ARow, ADepth, BRow, OutRow>(a, b, out, depth, accumulate);
  } else if constexpr (R > 1) {
    some_rows<C, R - 1, N, ARow, ADepth, BRow, OutRow>(a, b, out, rows, depth, accumulate);
  }
}

// A strip of N vectors of columns, over all rows.
template <class C, int N, int ARow, int ADepth, int BRow, int OutRow>
__attribute__((noinline)) void strip(const C* a, const C* b, C* out, int rows, int depth, bool accumulate) {
  for (; rows >= kBlockRows<C>; rows -= kBlockRows<C>) {
    block<C, kBlockRows<C>, N, ARow, ADepth, BRow, OutRow>(a, b, out, depth, accumulate);
    a += kBlockRows<C> * ARow;
    out += kBlockRows<C> * OutRow;
  }
  if (rows > 0) some_rows<C, kBlockRows<C> - 1, N, ARow, ADepth, BRow, OutRow>(a, b, out, rows, depth, accumulate);
}

template <class C, int ARow, int ADepth, int BRow, int OutRow>
FASTAMR_INLINE void product(const C* a, const C* b, C* out, int rows, int columns, int depth, bool accumulate) {
  constexpr int lanes = Lanes<C>::count;
  int c = 0;
  for (; c + kBlockVectors * lanes <= columns; c += kBlockVectors * lanes) {
    strip<C, kBlockVectors, ARow, ADepth, BRow, OutRow>(a, b + c, out + c, rows, depth, accumulate);
  }
  for (; c < columns; c += lanes) {
    strip<C, 1, ARow, ADepth, BRow, OutRow>(a, b + c, out + c, rows, depth, accumulate);
  }
}

// scores[i][j] = sum over e of rows[i][e] * panel[e][j]
template <class C>
FASTAMR_INLINE void times_panel(const C* rows, const C* panel, C* scores, int queries, int padded_keys, int size) {
  product<C, kHeadStride, 1, kKeyStride, kKeyStride>(rows, panel, scores, queries, padded_keys, size, false);
}

// out[i][e] = sum over j of weights[i][j] * values[j][e]
template <class C>
FASTAMR_INLINE void weigh(const C* weights, const C* values, C* out, int queries, int keys, int size) {
  product<C, kKeyStride, 1, kHeadStride, kHeadStride>(weights, values, out, queries, size, keys, false);
}

// out[j][e] (+)= sum over i of weights[i][j] * values[i][e]
template <class C>
FASTAMR_INLINE void weigh_transposed(const C* weights, const C* values, C* out, int queries, int keys, int size,
                                     bool accumulate) {
  product<C, 1, kKeyStride, kHeadStride, kHeadStride>(weights, values, out, keys, size, queries, accumulate);
}

// panel[e][j] = rows[j][e]; both counts are multiples of the lanes.
template <class C>
void to_panel(const C* rows, C* panel, int padded_keys, int size) {
  constexpr int lanes = Lanes<C>::count;
  for (int j = 0; j < padded_keys; j += lanes) {
    for (int e = 0; e < size; e += lanes) {
      Vector<C> tile[lanes];
      FASTAMR_UNROLL
      for (int i = 0; i < lanes; ++i) tile[i] = load<C>(rows + (j + i) * kHeadStride + e);
      transpose<C>(tile);
      FASTAMR_UNROLL
      for (int i = 0; i < lanes; ++i) store<C>(panel + (e + i) * kKeyStride + j, tile[i]);
    }
  }
}

}  // namespace
}  // namespace fastamr
