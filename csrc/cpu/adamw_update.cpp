// AdamW on a stretch of one tensor, everything in one pass over its memory. The file is compiled once for each
// instruction set, FASTAMR_ADAMW_KERNELS being the name of the table it defines.
#include <cmath>

#include "adamw_kernels.h"
#include "vectors.h"

namespace fastamr {
namespace {

FASTAMR_INLINE float number(float value) { return value; }

FASTAMR_INLINE float number(BFloat16 value) {
  const uint32_t bits = uint32_t{value.bits} << 16;
  float result;
  __builtin_memcpy(&result, &bits, sizeof(result));
  return result;
}

// To nearest, ties to even; NaN stays NaN.
FASTAMR_INLINE uint16_t rounded(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  const uint32_t nearest = (bits + ((bits >> 16 & 1) + 0x7fff)) >> 16;
  return static_cast<uint16_t>(value == value ? nearest : bits >> 16 | 0x40);
}

// In single precision, with as many running sums as the additions' latency hides.
template <class T>
FASTAMR_INLINE double sum_squares_of(const T* gradient, int64_t begin, int64_t end) {
  constexpr int lanes = Lanes<float>::count, ways = 4;
  Vector<float> sums[ways] = {};
  int64_t i = begin;
  for (; i + ways * lanes <= end; i += ways * lanes) {
    FASTAMR_UNROLL
    for (int way = 0; way < ways; ++way) {
      const Vector<float> value = load<float>(gradient + i + way * lanes);
      sums[way] += value * value;
    }
  }
  float rest = 0;
  for (; i < end; ++i) rest += number(gradient[i]) * number(gradient[i]);
  return double{sum_of<float>((sums[0] + sums[1]) + (sums[2] + sums[3]))} + rest;
}

double sum_squares(const AdamwTensor& tensor, int64_t begin, int64_t end) {
  return tensor.gradient != nullptr ? sum_squares_of(tensor.gradient, begin, end)
                                    : sum_squares_of(tensor.low_gradient, begin, end);
}

// A plain loop: the compiler makes vectors of it. The pointers never overlap, which the adapter leaves to the caller.
template <bool HasCopy, class T>
FASTAMR_INLINE void update_of(const T* __restrict gradient, const AdamwTensor& tensor, int64_t begin, int64_t end,
                              const AdamwNumbers& numbers) {
  float* __restrict parameter = tensor.parameter;
  float* __restrict exp_avg = tensor.exp_avg;
  float* __restrict exp_avg_sq = tensor.exp_avg_sq;
  BFloat16* __restrict copy = tensor.copy;
  const float beta2 = numbers.beta2, rest1 = numbers.rest1, rest2 = numbers.rest2, eps = numbers.eps;
  const float keep = tensor.keep, size = tensor.size, root = tensor.root, multiplier = numbers.multiplier;
  for (int64_t i = begin; i < end; ++i) {
    const float g = number(gradient[i]) * multiplier;
    const float m = exp_avg[i] + rest1 * (g - exp_avg[i]);
    const float v = beta2 * exp_avg_sq[i] + rest2 * g * g;
    const float p = keep * parameter[i] - size * (m / (std::sqrt(v) * root + eps));
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    parameter[i] = p;
    if constexpr (HasCopy) copy[i].bits = rounded(p);
  }
}

void update(const AdamwTensor& tensor, int64_t begin, int64_t end, const AdamwNumbers& numbers) {
  const auto with = [&](auto* gradient) {
    if (tensor.copy != nullptr) {
      update_of<true>(gradient, tensor, begin, end, numbers);
    } else {
      update_of<false>(gradient, tensor, begin, end, numbers);
    }
  };
  if (tensor.gradient != nullptr) {
    with(tensor.gradient);
  } else {
    with(tensor.low_gradient);
  }
}

}  // namespace

extern const AdamwKernels FASTAMR_ADAMW_KERNELS = {FASTAMR_KERNELS_NAME, sum_squares, update};

}  // namespace fastamr
