// The row passes of the CPU against float64, without Python: every instruction set that this processor has, every
// storage type, columns that fill no vector. All buffers are exactly as large as the tensors, so that a sanitizer sees
// a step outside.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "../../csrc/cpu/row_kernels.h"

namespace fastamr {
namespace {

template <class T>
double value_of(T x) {
  return x;
}
double value_of(BFloat16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

template <class T>
T stored(double x) {
  return static_cast<T>(x);
}
template <>
BFloat16 stored<BFloat16>(double x) {
  const float value = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// Two threads, each with every other range: results must not depend on who computes what.
void two_threads(int64_t tasks, const std::function<void(int64_t, int64_t)>& work) {
  const auto half = [&](int64_t first) {
    for (int64_t task = first; task < tasks; task += 2) work(task, task + 1);
  };
  std::thread other(half, 1);
  half(0);
  other.join();
}

template <class T>
std::vector<T> random(int64_t count, double shift, std::mt19937& generator) {
  std::normal_distribution<double> normal(shift, 1);
  std::vector<T> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(stored<T>(normal(generator)));
  return values;
}

// |found - truth| / |truth| over all numbers.
template <class T>
double distance(const std::vector<T>& found, const std::vector<double>& truth) {
  double away = 0, size = 1e-300;
  for (size_t i = 0; i < truth.size(); ++i) {
    away += (value_of(found[i]) - truth[i]) * (value_of(found[i]) - truth[i]);
    size += truth[i] * truth[i];
  }
  return std::isfinite(away) ? std::sqrt(away / size) : 1e9;
}

template <class T, class C>
double check_gelu(const RowFunctions<T, C>& functions, int64_t rows, int64_t columns, std::mt19937& generator) {
  const int64_t count = rows * columns;
  const auto product = random<T>(count, 0, generator), gradient = random<T>(count, 0, generator);
  const auto bias = random<C>(columns, 0, generator);
  std::vector<T> h(count), slope(count), du(count);
  std::vector<C> sums(columns, C{7});
  Gelu<T, C> call{rows, columns, product.data(), bias.data(), h.data(), slope.data()};
  run_rows(functions.gelu, call, static_cast<C*>(nullptr), two_threads);
  GeluBackward<T, C> backward{rows, columns, gradient.data(), slope.data(), du.data(), sums.data()};
  run_rows(functions.gelu_backward, backward, sums.data(), two_threads);
  std::vector<double> h_truth, slope_truth, du_truth, sums_truth(columns);
  for (int64_t i = 0; i < count; ++i) {
    const double u = value_of(product[i]) + value_of(bias[i % columns]);
    const double below = 0.5 * std::erfc(-u * std::sqrt(0.5));
    h_truth.push_back(u * below);
    slope_truth.push_back(below + u * std::exp(-0.5 * u * u) / std::sqrt(8 * std::atan(1)));
    du_truth.push_back(value_of(gradient[i]) * value_of(slope[i]));
    sums_truth[i % columns] += du_truth.back();
  }
  return std::max({distance(h, h_truth), distance(slope, slope_truth), distance(du, du_truth),
                   distance(sums, sums_truth)});
}

template <class T, class C>
double check_norm(const RowFunctions<T, C>& functions, int64_t rows, int64_t columns, std::mt19937& generator) {
  const int64_t count = rows * columns;
  const auto product = random<T>(count, 0.5, generator), residual = random<T>(count, 1, generator);
  const auto upstream = random<T>(count, 0, generator), skip = random<T>(count, 0, generator);
  const auto bias = random<C>(columns, 0, generator), gamma = random<C>(columns, 1, generator);
  const auto beta = random<C>(columns, 0, generator);
  std::vector<T> total(count), normed(count), dx(count);
  std::vector<C> mean(rows), rstd(rows), sums(3 * columns, C{7});
  const C eps = static_cast<C>(0.01);
  Norm<T, C> call{rows,         columns,     product.data(), bias.data(),   residual.data(), gamma.data(),
                  beta.data(),  eps,         total.data(),   normed.data(), mean.data(),     rstd.data()};
  run_rows(functions.norm, call, static_cast<C*>(nullptr), two_threads);
  NormBackward<T, C> backward{rows,        columns,      upstream.data(), total.data(), mean.data(),
                              rstd.data(), gamma.data(), skip.data(),     dx.data(),    sums.data()};
  run_rows(functions.norm_backward, backward, sums.data(), two_threads);
  std::vector<double> total_truth, normed_truth, dx_truth, sums_truth(3 * columns);
  for (int64_t row = 0; row < rows; ++row) {
    double average = 0, spread = 0, scaled = 0, along = 0;
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t i = row * columns + c;
      total_truth.push_back(value_of(product[i]) + value_of(bias[c]) + value_of(residual[i]));
      average += value_of(total[i]) / columns;
    }
    for (int64_t c = 0; c < columns; ++c) spread += std::pow(value_of(total[row * columns + c]) - average, 2) / columns;
    const double inverse = 1 / std::sqrt(spread + 0.01);
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t i = row * columns + c;
      const double standard = (value_of(total[i]) - average) * inverse;
      normed_truth.push_back(standard * value_of(gamma[c]) + value_of(beta[c]));
      scaled += value_of(upstream[i]) * value_of(gamma[c]) / columns;
      along += value_of(upstream[i]) * value_of(gamma[c]) * standard / columns;
    }
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t i = row * columns + c;
      const double standard = (value_of(total[i]) - average) * inverse, gradient = value_of(upstream[i]);
      dx_truth.push_back((gradient * value_of(gamma[c]) - scaled - standard * along) * inverse + value_of(skip[i]));
      sums_truth[c] += gradient * standard;
      sums_truth[columns + c] += gradient;
      sums_truth[2 * columns + c] += dx_truth.back();
    }
  }
  return std::max({distance(total, total_truth), distance(normed, normed_truth), distance(dx, dx_truth),
                   distance(sums, sums_truth)});
}

template <class T, class C>
bool check(const RowKernels& kernels, const RowFunctions<T, C>& functions, const char* type, double allowed) {
  double worst = 0;
  std::mt19937 generator(1);
  for (const int64_t rows : {1, 5, 37, 1100}) {
    for (const int64_t columns : {1, 15, 16, 48, 67}) {
      worst = std::max(worst, check_gelu(functions, rows, columns, generator));
      // The standardised rows of one column are zero, and so is their gradient: nothing to compare with.
      if (columns > 1) worst = std::max(worst, check_norm(functions, rows, columns, generator));
    }
  }
  std::printf("row passes, %s, %s: relative error %.2g%s\n", kernels.name, type, worst, worst <= allowed ? "" : " WRONG");
  return worst <= allowed;
}

bool check_all(const RowKernels& kernels) {
  const bool single = check(kernels, kernels.of_float, "float32", 2e-6);
  const bool half = check(kernels, kernels.of_bfloat16, "bfloat16", 6e-3);
  return check(kernels, kernels.of_double, "float64", 1e-13) && single && half;
}

}  // namespace
}  // namespace fastamr

int main() {
  bool right = fastamr::check_all(fastamr::row_kernels_baseline);
#if defined(__x86_64__)
  const fastamr::RowKernels& best = fastamr::best_row_kernels();
  if (&best != &fastamr::row_kernels_baseline) right &= fastamr::check_all(fastamr::row_kernels_avx2);
  if (&best == &fastamr::row_kernels_avx512) right &= fastamr::check_all(fastamr::row_kernels_avx512);
#endif
  return right ? 0 : 1;
}
