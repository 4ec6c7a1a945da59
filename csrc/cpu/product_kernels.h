// Products on the processor's matrix unit, each with the pass over rows that follows it.
#pragma once

#include <cstdint>
#include <functional>

#include "../products.h"
#include "../row_passes.h"
#include "bfloat16.h"

namespace fastamr {

// parallel(tasks, work) calls work(begin, end) for ranges that cover 0 .. tasks.
using Work = std::function<void(int64_t, int64_t)>;
using Parallel = std::function<void(int64_t, const Work&)>;

// The product, and the pass over its rows while they are at hand; the pass's own `product` stays unread. `sums` is
// (sum_rows, columns), or null where the pass has none.
template <class T, class Pass>
using ProductFunction = void (*)(const Product<T>& product, const Pass& pass, float* sums, const Parallel& parallel);

template <class T>
struct ProductFunctions {
  ProductFunction<T, Linear<T, float>> linear;
  ProductFunction<T, Gelu<T, float>> gelu;
  ProductFunction<T, GeluBackward<T, float>> gelu_backward;
  ProductFunction<T, Norm<T, float>> norm;
  ProductFunction<T, NormBackward<T, float>> norm_backward;
  void (*weight_gradient)(const WeightGradient<T>& call, const Parallel& parallel);
};

struct ProductKernels {
  ProductFunctions<float> of_float;
  ProductFunctions<BFloat16> of_bfloat16;
};

// Null where the processor, the operating system or the compiler has no matrix unit.
const ProductKernels* product_kernels();

#if defined(__x86_64__)
// Null where the compiler does not know the unit.
extern const ProductKernels* const tile_product_kernels;
#endif

}  // namespace fastamr
