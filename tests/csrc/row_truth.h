// The passes over rows in float64, written out loop by loop: what the CPU's kernels are compared with.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu_testing.h"

namespace fastamr::truth {

using Values = std::vector<double>;

inline double gelu(double u) { return 0.5 * u * std::erfc(-u * std::sqrt(0.5)); }

inline double gelu_slope(double u) {
  return 0.5 * std::erfc(-u * std::sqrt(0.5)) + u * std::exp(-0.5 * u * u) / std::sqrt(8 * std::atan(1));
}

// Layer norm of rows, and its backward: dx with `skip` added, if there is one, and three sums over rows.
template <class T, class C>
struct RowNorm {
  int64_t columns;
  const std::vector<T>& x;
  const std::vector<C>& gamma;
  double eps;
  Values standard, inverse;

  RowNorm(const std::vector<T>& x_given, const std::vector<C>& gamma_given, double eps_given)
      : columns(gamma_given.size()), x(x_given), gamma(gamma_given), eps(eps_given) {
    for (size_t row = 0; row < x.size() / columns; ++row) {
      double mean = 0, spread = 0;
      for (int64_t c = 0; c < columns; ++c) mean += value_of(x[row * columns + c]) / columns;
      for (int64_t c = 0; c < columns; ++c) spread += std::pow(value_of(x[row * columns + c]) - mean, 2) / columns;
      inverse.push_back(1 / std::sqrt(spread + eps));
      for (int64_t c = 0; c < columns; ++c) {
        standard.push_back((value_of(x[row * columns + c]) - mean) * inverse.back());
      }
    }
  }

  Values normed(const std::vector<C>& beta) const {
    Values all;
    for (size_t i = 0; i < standard.size(); ++i) {
      all.push_back(standard[i] * value_of(gamma[i % columns]) + value_of(beta[i % columns]));
    }
    return all;
  }

  struct Backward {
    Values dx, sums;
  };
  Backward backward(const Values& gradient, const std::vector<T>* skip) const {
    Backward result{Values(standard.size()), Values(3 * columns)};
    for (size_t row = 0; row < inverse.size(); ++row) {
      const size_t start = row * columns;
      double scaled = 0, along = 0;
      for (int64_t c = 0; c < columns; ++c) {
        scaled += gradient[start + c] * value_of(gamma[c]) / columns;
        along += gradient[start + c] * value_of(gamma[c]) * standard[start + c] / columns;
      }
      for (int64_t c = 0; c < columns; ++c) {
        const size_t i = start + c;
        result.dx[i] = (gradient[i] * value_of(gamma[c]) - scaled - standard[i] * along) * inverse[row];
        if (skip != nullptr) result.dx[i] += value_of((*skip)[i]);
        result.sums[c] += gradient[i] * standard[i];
        result.sums[columns + c] += gradient[i];
        result.sums[2 * columns + c] += result.dx[i];
      }
    }
    return result;
  }
};

}  // namespace fastamr::truth
