// Which of the compiled kernels this processor runs.
#include <cstdlib>
#include <cstring>

#include "adamw_kernels.h"
#include "kernels.h"
#include "product_kernels.h"
#include "row_kernels.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

// The most that the library was built for: 0 the family's common instructions, 1 AVX2, 2 AVX-512, 3 the matrix unit.
#if !defined(FASTAMR_LEVEL)
#if defined(__x86_64__)
#define FASTAMR_LEVEL 3
#else
#define FASTAMR_LEVEL 0
#endif
#endif

namespace fastamr {
namespace {

enum class InstructionSet { baseline, avx2, avx512 };

InstructionSet choose() {
#if FASTAMR_LEVEL > 0
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const char* named = std::getenv("FASTAMR_CPU");
  const bool only_baseline = named != nullptr && std::strcmp(named, kernels_baseline.name) == 0;
  const bool only_avx2 = FASTAMR_LEVEL == 1 || (named != nullptr && std::strcmp(named, kernels_avx2.name) == 0);
  if (avx512 && !only_avx2 && !only_baseline) return InstructionSet::avx512;
  if (avx2 && !only_baseline) return InstructionSet::avx2;
#endif
  return InstructionSet::baseline;
}

InstructionSet best_set() {
  static const InstructionSet best = choose();
  return best;
}

// Whether the processor has the matrix unit with bfloat16, and the system lets this process use it. FASTAMR_CPU leaves it
// unused, whichever instruction set it names.
[[maybe_unused]] bool may_use_tiles() {
#if FASTAMR_LEVEL > 2 && defined(__linux__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (best_set() != InstructionSet::avx512 || std::getenv("FASTAMR_CPU") != nullptr) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool bfloat16 = d >> 22 & 1, tiles = d >> 24 & 1;
  // Floats are rounded by AVX-512's own instruction, which a virtual machine may hide.
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return false;
  constexpr long request_permission = 0x1023, tile_data = 18;
  return bfloat16 && tiles && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

}  // namespace

const ProductKernels* product_kernels() {
#if FASTAMR_LEVEL > 2
  static const ProductKernels* const found = may_use_tiles() ? tile_product_kernels : nullptr;
  return found;
#else
  return nullptr;
#endif
}

// The table of this name for the best instruction set.
#if FASTAMR_LEVEL > 1
#define FASTAMR_BEST(table)                                   \
  (best_set() == InstructionSet::avx512 ? table##_avx512      \
   : best_set() == InstructionSet::avx2 ? table##_avx2        \
                                        : table##_baseline)
#elif FASTAMR_LEVEL == 1
#define FASTAMR_BEST(table) (best_set() == InstructionSet::avx2 ? table##_avx2 : table##_baseline)
#else
#define FASTAMR_BEST(table) table##_baseline
#endif

const Kernels& best_kernels() { return FASTAMR_BEST(kernels); }
const AdamwKernels& best_adamw_kernels() { return FASTAMR_BEST(adamw_kernels); }
const RowKernels& best_row_kernels() { return FASTAMR_BEST(row_kernels); }

}  // namespace fastamr
