// AdamW over many tensors on the CPU: what a call is, as plain pointers, and the tables of functions that do it, one
// table for each instruction set they are compiled for.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "bfloat16.h"

namespace fastamr {

// One parameter with its gradient and state: `count` numbers each, in one order in memory.
struct AdamwTensor {
  int64_t count = 0;
  float* parameter = nullptr;
  float* exp_avg = nullptr;
  float* exp_avg_sq = nullptr;
  const float* gradient = nullptr;              // one of the two gradients is null
  const BFloat16* low_gradient = nullptr;
  BFloat16* copy = nullptr;                     // or null
  float keep = 1;                               // 1 - lr * weight_decay
  float size = 0;                               // lr / (1 - b1^t)
  float root = 1;                               // 1 / sqrt(1 - b2^t)
};

// What all tensors share.
struct AdamwNumbers {
  float beta2, rest1, rest2, eps;  // rest: 1 - b1, 1 - b2
  float multiplier;                // of the gradients
};

struct AdamwKernels {
  const char* name;
  // Sum of the squares of the gradient's numbers begin .. end.
  double (*sum_squares)(const AdamwTensor& tensor, int64_t begin, int64_t end);
  // Update the numbers begin .. end.
  void (*update)(const AdamwTensor& tensor, int64_t begin, int64_t end, const AdamwNumbers& numbers);
};

extern const AdamwKernels adamw_kernels_baseline;
#if defined(__x86_64__)
extern const AdamwKernels adamw_kernels_avx2;
extern const AdamwKernels adamw_kernels_avx512;
#endif

// The fastest table that this processor can run, chosen as best_kernels() is.
const AdamwKernels& best_adamw_kernels();

// Numbers of one task. Sums of squares are added task after task, so they do not depend on the number of threads.
constexpr int64_t kAdamwChunk = 16384;

struct AdamwChunk {
  const AdamwTensor* tensor;
  int64_t begin, end;
};

inline std::vector<AdamwChunk> adamw_chunks(const std::vector<AdamwTensor>& tensors) {
  std::vector<AdamwChunk> chunks;
  for (const AdamwTensor& tensor : tensors) {
    for (int64_t begin = 0; begin < tensor.count; begin += kAdamwChunk) {
      const int64_t end = begin + kAdamwChunk;
      chunks.push_back({&tensor, begin, end < tensor.count ? end : tensor.count});
    }
  }
  return chunks;
}

// `parallel` is as in run.h.
template <class Parallel>
double adamw_norm(const AdamwKernels& kernels, const std::vector<AdamwChunk>& chunks, const Parallel& parallel) {
  std::vector<double> sums(chunks.size());
  parallel(static_cast<int64_t>(chunks.size()), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      sums[i] = kernels.sum_squares(*chunks[i].tensor, chunks[i].begin, chunks[i].end);
    }
  });
  double sum = 0;
  for (const double each : sums) sum += each;
  return std::sqrt(sum);
}

template <class Parallel>
void adamw_run(const AdamwKernels& kernels, const std::vector<AdamwChunk>& chunks, const AdamwNumbers& numbers,
               const Parallel& parallel) {
  parallel(static_cast<int64_t>(chunks.size()), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernels.update(*chunks[i].tensor, chunks[i].begin, chunks[i].end, numbers);
    }
  });
}

}  // namespace fastamr
