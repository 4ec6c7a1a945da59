// The row passes as tables of functions, one table for each instruction set, and how a pass is run in parallel.
#pragma once

#include <cstdint>
#include <vector>

#include "../row_passes.h"
#include "bfloat16.h"

namespace fastamr {

// Rows are cut into groups that depend on their number alone, so that sums over rows are added in the same order by
// any number of threads.
constexpr int64_t kRowGroups = 64;
constexpr int64_t kLeastRows = 16;

static inline int64_t rows_per_group(int64_t rows) {
  const int64_t even = (rows + kRowGroups - 1) / kRowGroups;
  return even < kLeastRows ? kLeastRows : even;
}

static inline int64_t row_groups(int64_t rows) { return (rows + rows_per_group(rows) - 1) / rows_per_group(rows); }

// Run rows first .. last; `sums` is (sum_rows, columns), zeroed, or null where a pass has none.
template <template <class, class> class Pass, class T, class C>
using RowFunction = void (*)(const Pass<T, C>& call, int64_t first, int64_t last, C* sums);

template <class T, class C>
struct RowFunctions {
  RowFunction<Gelu, T, C> gelu;
  RowFunction<GeluBackward, T, C> gelu_backward;
  RowFunction<Norm, T, C> norm;
  RowFunction<NormBackward, T, C> norm_backward;
};

struct RowKernels {
  const char* name;
  RowFunctions<float, float> of_float;
  RowFunctions<BFloat16, float> of_bfloat16;
  RowFunctions<double, double> of_double;
};

extern const RowKernels row_kernels_baseline;
#if defined(__x86_64__)
extern const RowKernels row_kernels_avx2;
extern const RowKernels row_kernels_avx512;
#endif

// The fastest table that this processor can run, chosen as best_kernels() is.
const RowKernels& best_row_kernels();

// The whole pass: groups in parallel, then the sums over groups. `parallel` is as in run.h.
template <class Call, class Function, class Parallel>
void run_rows(Function function, const Call& call, typename Call::Compute* sums, const Parallel& parallel) {
  using C = typename Call::Compute;
  const int64_t groups = row_groups(call.rows), step = rows_per_group(call.rows);
  const int64_t size = Call::sum_rows * call.columns;
  std::vector<C> partials(groups * size);
  parallel(groups, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const int64_t first = group * step, last = first + step < call.rows ? first + step : call.rows;
      function(call, first, last, size == 0 ? nullptr : partials.data() + group * size);
    }
  });
  for (int64_t i = 0; i < size; ++i) sums[i] = 0;
  for (int64_t group = 0; group < groups; ++group) {
    const C* mine = partials.data() + group * size;
    for (int64_t i = 0; i < size; ++i) sums[i] += mine[i];
  }
}

}  // namespace fastamr
