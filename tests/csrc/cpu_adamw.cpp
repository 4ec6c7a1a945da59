// The CPU's AdamW against the formula in double precision, for every instruction set that this processor has: sums of
// squares and updates of stretches of all lengths, with guards around them.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "../../csrc/cpu/adamw_kernels.h"
#include "cpu_testing.h"

using namespace fastamr;

namespace {

int failures = 0;

void expect(bool holds, const char* set, const char* what, int64_t count) {
  if (holds) return;
  std::printf("%s: %s differs at length %lld\n", set, what, static_cast<long long>(count));
  ++failures;
}

bool near(double found, double expected) { return std::abs(found - expected) <= 2e-6 * std::abs(expected) + 1e-7; }

struct Numbers {
  std::vector<float> parameter, exp_avg, exp_avg_sq, gradient;
  std::vector<BFloat16> low, copy;

  explicit Numbers(int64_t count) {
    std::mt19937 generator(static_cast<unsigned>(count));
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < count; ++i) {
      parameter.push_back(normal(generator));
      exp_avg.push_back(normal(generator));
      exp_avg_sq.push_back(std::abs(normal(generator)));
      low.push_back(stored<BFloat16>(normal(generator)));
      gradient.push_back(static_cast<float>(value_of(low.back())));
      copy.push_back({0x1234});
    }
  }
};

// The numbers `begin .. end` of `count`, where those outside must stay as they are.
void check(const AdamwKernels& kernels, int64_t count, int64_t begin, int64_t end, bool low, bool copies) {
  Numbers given(count), done(count);
  AdamwTensor tensor;
  tensor.count = count;
  tensor.parameter = done.parameter.data();
  tensor.exp_avg = done.exp_avg.data();
  tensor.exp_avg_sq = done.exp_avg_sq.data();
  if (low) {
    tensor.low_gradient = done.low.data();
  } else {
    tensor.gradient = done.gradient.data();
  }
  tensor.copy = copies ? done.copy.data() : nullptr;
  tensor.keep = 0.99f;
  tensor.size = 0.02f;
  tensor.root = 1.5f;
  const AdamwNumbers numbers{0.95f, 0.1f, 0.05f, 1e-8f, 0.5f};

  double squares = 0;
  for (int64_t i = begin; i < end; ++i) squares += double{given.gradient[i]} * given.gradient[i];
  expect(near(kernels.sum_squares(tensor, begin, end), squares), kernels.name, "sum of squares", end - begin);

  kernels.update(tensor, begin, end, numbers);
  for (int64_t i = 0; i < count; ++i) {
    double m = given.exp_avg[i], v = given.exp_avg_sq[i], p = given.parameter[i];
    uint16_t bits = 0x1234;
    if (begin <= i && i < end) {
      const double g = given.gradient[i] * 0.5;
      m += double{0.1f} * (g - m);
      v = double{0.95f} * v + double{0.05f} * g * g;
      p = double{0.99f} * p - double{0.02f} * m / (std::sqrt(v) * 1.5 + double{1e-8f});
      if (copies) bits = stored<BFloat16>(done.parameter[i]).bits;
    }
    expect(near(done.exp_avg[i], m), kernels.name, "exp_avg", count);
    expect(near(done.exp_avg_sq[i], v), kernels.name, "exp_avg_sq", count);
    expect(near(done.parameter[i], p), kernels.name, "parameter", count);
    expect(done.copy[i].bits == bits, kernels.name, "copy", count);
  }
}

void check_all(const AdamwKernels& kernels) {
  for (const int64_t count : {1, 3, 15, 16, 17, 63, 64, 65, 130, 1000}) {
    for (int form = 0; form < 4; ++form) {
      check(kernels, count, 0, count, form % 2 == 1, form / 2 == 1);
      check(kernels, count, count / 3, count - count / 4, form % 2 == 1, form / 2 == 1);
    }
  }
}

}  // namespace

int main() {
  check_all(adamw_kernels_baseline);
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) check_all(adamw_kernels_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    check_all(adamw_kernels_avx512);
  }
#endif
  std::printf("AdamW: %s\n", failures == 0 ? "agrees" : "FAILED");
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
