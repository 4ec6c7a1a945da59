// The CPU kernels as tables of functions, one table for each instruction set they are compiled for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../visible_attention.h"
#include "bfloat16.h"

namespace fastamr {

// A task is a fixed group of consecutive sequences and one head; task = group * heads + head. The groups depend on
// the number of sequences alone, so sums over sequences are added in the same order by any number of threads.
constexpr int64_t kGroups = 64;

static inline int64_t sequences_per_group(const Shape& shape) { return (shape.sequences + kGroups - 1) / kGroups; }

static inline int64_t groups_of(const Shape& shape) {
  return shape.sequences == 0 ? 0 : (shape.sequences + sequences_per_group(shape) - 1) / sequences_per_group(shape);
}

static inline int64_t tasks_of(const Shape& shape) { return groups_of(shape) * shape.heads; }

// Numbers in a task's partial sums: columns of dq, dk, dv (3, E), joint table (V, V), time table (R,).
template <class C>
static inline int64_t partial_size(const Shape& shape, const Structure<C>& structure) {
  return 3 * shape.size + int64_t{structure.joints} * structure.joints + structure.offsets;
}

template <class T, class C>
struct Functions {
  // Run the tasks begin .. end. `scratch` has scratch_bytes, aligned to 64.
  void (*forward)(const Forward<T, C>& call, int64_t begin, int64_t end, void* scratch);
  // `partials` is (tasks, partial_size), zeroed, or null if no sum over sequences is wanted.
  void (*backward)(const Backward<T, C>& call, int64_t begin, int64_t end, void* scratch, C* partials);
  size_t scratch_bytes;
};

struct Kernels {
  const char* name;
  Functions<float, float> of_float;
  Functions<BFloat16, float> of_bfloat16;
  Functions<double, double> of_double;
};

extern const Kernels kernels_baseline;
#if defined(__x86_64__)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

// The fastest table that this processor can run; never more than the environment variable FASTAMR_CPU
// (baseline, avx2 or avx512) allows.
const Kernels& best_kernels();

}  // namespace fastamr
