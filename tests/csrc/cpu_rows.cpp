// The row passes of the CPU against float64, without Python: every instruction set that this processor has, every
// storage type, columns that fill no vector. All buffers are exactly as large as the tensors, so that a sanitizer sees
// a step outside.
#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "../../csrc/cpu/row_kernels.h"
#include "row_truth.h"

namespace fastamr {
namespace {

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
    h_truth.push_back(truth::gelu(u));
    slope_truth.push_back(truth::gelu_slope(u));
    du_truth.push_back(value_of(gradient[i]) * value_of(slope[i]));
    sums_truth[i % columns] += du_truth.back();
  }
  return std::max({distance(h, h_truth), distance(slope, slope_truth), distance(du, du_truth),
                   distance(sums, sums_truth)});
}

template <class T, class C>
double check_norm(const RowFunctions<T, C>& functions, int64_t rows, int64_t columns, bool scaled,
                  std::mt19937& generator) {
  const int64_t count = rows * columns;
  const auto product = random<T>(count, 0.5, generator), residual = random<T>(count, 1, generator);
  const auto upstream = random<T>(count, 0, generator), skip = random<T>(count, 0, generator);
  const auto bias = random<C>(columns, 0, generator), gamma = random<C>(columns, 1, generator);
  const auto beta = random<C>(columns, 0, generator);
  const auto scale = random<C>(rows, 1, generator);
  std::vector<T> total(count), normed(count), dx(count), dbranch(scaled ? count : 0);
  std::vector<C> mean(rows), rstd(rows), sums(3 * columns, C{7});
  const C eps = static_cast<C>(0.01);
  Norm<T, C> call{rows,         columns,     product.data(), bias.data(),   residual.data(), gamma.data(),
                  beta.data(),  eps,         total.data(),   normed.data(), mean.data(),     rstd.data()};
  if (scaled) call.scale = scale.data();
  run_rows(functions.norm, call, static_cast<C*>(nullptr), two_threads);
  NormBackward<T, C> backward{rows,        columns,      upstream.data(), total.data(), mean.data(),
                              rstd.data(), gamma.data(), skip.data(),     dx.data(),    sums.data()};
  if (scaled) {
    backward.scale = scale.data();
    backward.dbranch = dbranch.data();
  }
  run_rows(functions.norm_backward, backward, sums.data(), two_threads);
  std::vector<double> total_truth;
  for (int64_t i = 0; i < count; ++i) {
    const double factor = scaled ? value_of(scale[i / columns]) : 1;
    total_truth.push_back(factor * (value_of(product[i]) + value_of(bias[i % columns])) + value_of(residual[i]));
  }
  const truth::RowNorm<T, C> exact(total, gamma, 0.01);
  std::vector<double> gradient;
  for (const T& each : upstream) gradient.push_back(value_of(each));
  auto exact_backward = exact.backward(gradient, &skip);
  std::vector<double> branch_truth;
  for (int64_t i = 0; scaled && i < count; ++i) {
    branch_truth.push_back(value_of(scale[i / columns]) * exact_backward.dx[i]);
    if (i < columns) exact_backward.sums[2 * columns + i] = 0;
    exact_backward.sums[2 * columns + i % columns] += branch_truth.back();
  }
  return std::max({distance(total, total_truth), distance(normed, exact.normed(beta)),
                   distance(dx, exact_backward.dx), distance(sums, exact_backward.sums),
                   scaled ? distance(dbranch, branch_truth) : 0.0});
}

template <class T, class C>
bool check(const RowKernels& kernels, const RowFunctions<T, C>& functions, const char* type, double allowed) {
  double worst = 0;
  std::mt19937 generator(1);
  for (const int64_t rows : {1, 5, 37, 1100}) {
    for (const int64_t columns : {1, 15, 16, 48, 67}) {
      worst = std::max(worst, check_gelu(functions, rows, columns, generator));
      // The standardised rows of one column are zero, and so is their gradient: nothing to compare with.
      if (columns == 1) continue;
      for (const bool scaled : {false, true}) {
        worst = std::max(worst, check_norm(functions, rows, columns, scaled, generator));
      }
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
