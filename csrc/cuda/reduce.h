// Sums the CTAs' shares of what crosses sequences, in a fixed order.
#pragma once

#include "primitives.h"

namespace fastamr::gpu {

constexpr int kReduceColumns = 32, kReduceSlices = 8;
constexpr int kReduceThreads = kReduceColumns * kReduceSlices;
constexpr uint32_t kReduceBytes = kReduceThreads * 4;

// out[i] = sum over groups of partials[group][i], for the 32 columns of CTA `block`. A warp takes every 8th
// group.
FASTAMR_DEVICE void reduce_partials(const float* partials, int64_t groups, int64_t width, float* out,
                                    int64_t block) {
  const int slice = thread_index() / kReduceColumns, lane = thread_index() % kReduceColumns;
  const int64_t column = block * kReduceColumns + lane;
  float sum = 0;
  if (column < width) {
#pragma unroll 4
    for (int64_t group = slice; group < groups; group += kReduceSlices)
      sum += partials[group * width + column];
  }
  store_shared<float>(static_cast<uint32_t>(thread_index()) * 4, sum);
  barrier();
  if (slice != 0 || column >= width) return;
  float total = 0;
  for (int i = 0; i < kReduceSlices; ++i) {
    total += load_shared<float>(static_cast<uint32_t>(i * kReduceColumns + lane) * 4);
  }
  out[column] = total;
}

}  // namespace fastamr::gpu
