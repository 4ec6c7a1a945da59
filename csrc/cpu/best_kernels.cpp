// Which of the compiled kernels this processor runs.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace fastamr {
namespace {

const Kernels& choose() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const char* named = std::getenv("FASTAMR_CPU");
  const bool only_baseline = named != nullptr && std::strcmp(named, kernels_baseline.name) == 0;
  const bool only_avx2 = named != nullptr && std::strcmp(named, kernels_avx2.name) == 0;
  if (avx512 && !only_avx2 && !only_baseline) return kernels_avx512;
  if (avx2 && !only_baseline) return kernels_avx2;
#endif
  return kernels_baseline;
}

}  // namespace

const Kernels& best_kernels() {
  static const Kernels& best = choose();
  return best;
}

}  // namespace fastamr
