// Matrix products of flat rows with a weight, and what follows each: as plain pointers. The pass of row_passes.h that
// follows reads the sums before they are rounded.
//
// T is the storage type: float or BFloat16. All matrices are contiguous. Float matrices are multiplied as sums of
// `parts` bfloat16 numbers: 3 keep all 24 bits of a float, 2 keep 16 and 1 keeps 8.
#pragma once

#include <cstdint>

#include "row_passes.h"

namespace fastamr {

// rows (M, inner) by a weight, giving (M, columns).
template <class T>
struct Product {
  int64_t rows = 0, inner = 0, columns = 0;
  const T* x = nullptr;
  const T* weight = nullptr;
  bool transposed = false;  // weight is (columns, inner), as a linear layer holds it; else (inner, columns)
  int parts = 1;
};

// out = product + bias.
template <class T, class C>
struct Linear : Pass<T, C, 0> {
  const C* bias = nullptr;  // (columns,) or null: nothing is added
  T* out = nullptr;
};

// out (outputs, inputs) = upstream (rows, outputs) transposed, by x (rows, inputs).
template <class T>
struct WeightGradient {
  int64_t rows = 0, outputs = 0, inputs = 0;
  const T* upstream = nullptr;
  const T* x = nullptr;
  float* out = nullptr;
  int parts = 1;
};

}  // namespace fastamr
