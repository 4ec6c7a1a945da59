// The row passes of row_passes.h for single rows: what the passes over finished products and the products with a pass
// at their end have in common. P is the type of the product's numbers, T of all others in memory.
#pragma once

#include <cmath>

#include "../row_passes.h"
#include "gelu.h"
#include "vectors.h"

namespace fastamr {
namespace {

// One number from memory, and back, for the columns that fill no vector.
template <class C, class T>
FASTAMR_INLINE C load_one(const T* from) {
  if constexpr (sizeof(T) == sizeof(C)) {
    return *from;
  } else {
    const uint32_t bits = uint32_t{from->bits} << 16;
    C value;
    __builtin_memcpy(&value, &bits, sizeof(value));
    return value;
  }
}

template <class C, class T>
FASTAMR_INLINE void store_one(T* to, C value) {
  if constexpr (sizeof(T) == sizeof(C)) {
    *to = value;
  } else {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof(bits));
    to->bits = static_cast<uint16_t>(value == value ? (bits + ((bits >> 16 & 1) + 0x7fff)) >> 16 : bits >> 16 | 0x40);
  }
}

// Call `whole(c)` for each vector of columns, `single(c)` for each column of the rest.
template <class C, class Whole, class Single>
FASTAMR_INLINE void each_column(int64_t columns, Whole whole, Single single) {
  constexpr int lanes = Lanes<C>::count;
  int64_t c = 0;
  for (; c + lanes <= columns; c += lanes) whole(c);
  for (; c < columns; ++c) single(c);
}

// out = product + bias.
template <class T, class C, class P>
FASTAMR_INLINE void add_bias(const P* product, const C* bias, T* out, int64_t columns) {
  each_column<C>(
      columns,
      [&](int64_t c) {
        const Vector<C> value = load<C>(product + c);
        store<C>(out + c, bias == nullptr ? value : value + load<C>(bias + c));
      },
      [&](int64_t c) { store_one<C>(out + c, load_one<C>(product + c) + (bias == nullptr ? C{0} : bias[c])); });
}

template <class T, class P>
FASTAMR_INLINE void gelu_row(const P* product, const float* bias, T* h, T* slope, int64_t columns) {
  const auto whole = [&](int64_t c) {
    const GeluValue value = gelu_of<T>(load<float>(product + c) + load<float>(bias + c));
    store<float>(h + c, value.h);
    if (slope != nullptr) store<float>(slope + c, value.slope);
  };
  const auto single = [&](int64_t c) {
    const GeluValue value = gelu_of<T>(splat<float>(load_one<float>(product + c) + bias[c]));
    store_one<float>(h + c, value.h[0]);
    if (slope != nullptr) store_one<float>(slope + c, value.slope[0]);
  };
  each_column<float>(columns, whole, single);
}

template <class T, class C, class P>
FASTAMR_INLINE void gelu_backward_row(const P* product, const T* slope, T* du, C* sums, int64_t columns) {
  each_column<C>(
      columns,
      [&](int64_t c) {
        const Vector<C> value = load<C>(product + c) * load<C>(slope + c);
        store<C>(du + c, value);
        store<C>(sums + c, load<C>(sums + c) + value);
      },
      [&](int64_t c) {
        const C value = load_one<C>(product + c) * load_one<C>(slope + c);
        store_one<C>(du + c, value);
        sums[c] += value;
      });
}

// Sum over a row of what `whole` and `single` return for a vector and for one column.
template <class C, class Whole, class Single>
FASTAMR_INLINE C row_sum(int64_t columns, Whole whole, Single single) {
  Vector<C> sum = {};
  C rest = 0;
  each_column<C>(columns, [&](int64_t c) { sum += whole(c); }, [&](int64_t c) { rest += single(c); });
  return sum_of<C>(sum) + rest;
}

// A row's sum before the norm, rounded to T, into `total`.
template <bool Scaled, class T, class C, class P>
FASTAMR_INLINE void add_row_as(const Norm<T, C>& call, int64_t row, const P* product, T* total) {
  const T* residual = call.residual == nullptr ? nullptr : call.residual + row * call.columns;
  const C scale = Scaled ? call.scale[row] : C{1};
  each_column<C>(
      call.columns,
      [&](int64_t c) {
        Vector<C> value = load<C>(product + c);
        if (call.bias != nullptr) value += load<C>(call.bias + c);
        if constexpr (Scaled) value *= scale;
        if (residual != nullptr) value += load<C>(residual + c);
        store<C>(total + c, value);
      },
      [&](int64_t c) {
        C value = load_one<C>(product + c);
        if (call.bias != nullptr) value += call.bias[c];
        if constexpr (Scaled) value *= scale;
        if (residual != nullptr) value += load_one<C>(residual + c);
        store_one<C>(total + c, value);
      });
}

// Two functions: a pass without a scale keeps the instructions, and so the bits, that it has alone.
template <class T, class C, class P>
FASTAMR_INLINE void add_row(const Norm<T, C>& call, int64_t row, const P* product, T* total) {
  if (call.scale == nullptr) return add_row_as<false>(call, row, product, total);
  add_row_as<true>(call, row, product, total);
}

// The norm of row `row`, whose numbers are `x`.
template <class T, class C>
FASTAMR_INLINE void standardise_row(const Norm<T, C>& call, int64_t row, const T* x) {
  const C share = 1 / static_cast<C>(call.columns);
  const C mean = share * row_sum<C>(
                             call.columns, [&](int64_t c) { return load<C>(x + c); },
                             [&](int64_t c) { return load_one<C>(x + c); });
  const C variance = share * row_sum<C>(
                                 call.columns,
                                 [&](int64_t c) {
                                   const Vector<C> away = load<C>(x + c) - mean;
                                   return away * away;
                                 },
                                 [&](int64_t c) {
                                   const C away = load_one<C>(x + c) - mean;
                                   return away * away;
                                 });
  const C rstd = 1 / std::sqrt(variance + call.eps);
  call.mean[row] = mean;
  call.rstd[row] = rstd;
  T* normed = call.normed + row * call.columns;
  each_column<C>(
      call.columns,
      [&](int64_t c) {
        store<C>(normed + c, (load<C>(x + c) - mean) * rstd * load<C>(call.gamma + c) + load<C>(call.beta + c));
      },
      [&](int64_t c) {
        store_one<C>(normed + c, (load_one<C>(x + c) - mean) * rstd * call.gamma[c] + call.beta[c]);
      });
}

template <bool Scaled, class T, class C, class P>
FASTAMR_INLINE void norm_backward_row_as(const NormBackward<T, C>& call, int64_t row, const P* product, C* sums) {
  const C share = 1 / static_cast<C>(call.columns);
  C* gamma_sums = sums;
  C* beta_sums = sums + call.columns;
  C* dx_sums = sums + 2 * call.columns;
  const T* total = call.total + row * call.columns;
  const T* skip = call.skip == nullptr ? nullptr : call.skip + row * call.columns;
  T* dx = call.dx + row * call.columns;
  T* dbranch = Scaled ? call.dbranch + row * call.columns : nullptr;
  const C scale = Scaled ? call.scale[row] : C{1};
  const C mean = call.mean[row], rstd = call.rstd[row];
  Vector<C> scaled_sum = {}, along_sum = {};
  C scaled_rest = 0, along_rest = 0;
  each_column<C>(
      call.columns,
      [&](int64_t c) {
        const Vector<C> gradient = load<C>(product + c), standard = (load<C>(total + c) - mean) * rstd;
        const Vector<C> scaled = gradient * load<C>(call.gamma + c);
        scaled_sum += scaled;
        along_sum += scaled * standard;
        store<C>(gamma_sums + c, load<C>(gamma_sums + c) + gradient * standard);
        store<C>(beta_sums + c, load<C>(beta_sums + c) + gradient);
      },
      [&](int64_t c) {
        const C gradient = load_one<C>(product + c), standard = (load_one<C>(total + c) - mean) * rstd;
        scaled_rest += gradient * call.gamma[c];
        along_rest += gradient * call.gamma[c] * standard;
        gamma_sums[c] += gradient * standard;
        beta_sums[c] += gradient;
      });
  const C scaled_mean = share * (sum_of<C>(scaled_sum) + scaled_rest);
  const C along = share * (sum_of<C>(along_sum) + along_rest);
  each_column<C>(
      call.columns,
      [&](int64_t c) {
        const Vector<C> standard = (load<C>(total + c) - mean) * rstd;
        Vector<C> value = (load<C>(product + c) * load<C>(call.gamma + c) - scaled_mean - standard * along) * rstd;
        if (skip != nullptr) value += load<C>(skip + c);
        store<C>(dx + c, value);
        if constexpr (Scaled) {
          value *= scale;
          store<C>(dbranch + c, value);
        }
        store<C>(dx_sums + c, load<C>(dx_sums + c) + value);
      },
      [&](int64_t c) {
        const C standard = (load_one<C>(total + c) - mean) * rstd;
        C value = (load_one<C>(product + c) * call.gamma[c] - scaled_mean - standard * along) * rstd;
        if (skip != nullptr) value += load_one<C>(skip + c);
        store_one<C>(dx + c, value);
        if constexpr (Scaled) {
          value *= scale;
          store_one<C>(dbranch + c, value);
        }
        dx_sums[c] += value;
      });
}

template <class T, class C, class P>
FASTAMR_INLINE void norm_backward_row(const NormBackward<T, C>& call, int64_t row, const P* product, C* sums) {
  if (call.scale == nullptr) return norm_backward_row_as<false>(call, row, product, sums);
  norm_backward_row_as<true>(call, row, product, sums);
}

}  // namespace
}  // namespace fastamr
