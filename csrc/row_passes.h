// The passes over flat rows that follow the matrix products of a transformer block, as plain pointers: what is left of
// linear + GELU, linear + residual + layer norm, and of their backwards once the product itself is done.
//
// T is the storage type of activations, C the compute type: float, or double for double. All matrices are contiguous,
// (rows, columns). A pass may write over its `product`. Column sums are taken of numbers before they are rounded to T.
#pragma once

#include <cstdint>

namespace fastamr {

// What every pass has: its size, and rows of sums over the rows, 0 where there are none.
template <class T, class C, int SumRows>
struct Pass {
  using Compute = C;
  static constexpr int sum_rows = SumRows;
  int64_t rows = 0, columns = 0;
};

// u = product + bias; h = gelu(u), slope = gelu'(u). Exact GELU: u * Phi(u).
template <class T, class C>
struct Gelu : Pass<T, C, 0> {
  const T* product = nullptr;
  const C* bias = nullptr;   // (columns,)
  T* h = nullptr;
  T* slope = nullptr;        // or null: not wanted
};

// du = product * slope; sums (columns,) of du.
template <class T, class C>
struct GeluBackward : Pass<T, C, 1> {
  const T* product = nullptr;
  const T* slope = nullptr;
  T* du = nullptr;
  C* sums = nullptr;         // (1, columns)
};

// total = residual + scale * (product + bias), rounded to T; normed = layer norm of the rounded total.
template <class T, class C>
struct Norm : Pass<T, C, 0> {
  const T* product = nullptr;
  const C* bias = nullptr;      // (columns,) or null: nothing is added
  const T* residual = nullptr;  // or null: nothing is added
  const C* gamma = nullptr;
  const C* beta = nullptr;
  C eps = 0;
  T* total = nullptr;           // or null: not wanted
  T* normed = nullptr;
  C* mean = nullptr;            // (rows,)
  C* rstd = nullptr;            // (rows,)
  const C* scale = nullptr;     // (rows,) or null: 1
};

// With dnormed = product: dx = layer norm's backward at total, + skip; dbranch = scale * dx; sums: of dnormed *
// standardised total (gamma's gradient), of dnormed (beta's), of scale * dx.
template <class T, class C>
struct NormBackward : Pass<T, C, 3> {
  const T* product = nullptr;
  const T* total = nullptr;
  const C* mean = nullptr;
  const C* rstd = nullptr;
  const C* gamma = nullptr;
  const T* skip = nullptr;      // or null: nothing is added
  T* dx = nullptr;
  C* sums = nullptr;            // (3, columns)
  const C* scale = nullptr;     // (rows,) or null: 1, and dbranch is not written
  T* dbranch = nullptr;
};

}  // namespace fastamr
