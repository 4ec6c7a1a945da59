// The row passes on the CPU, one group of rows at a time. The file is compiled once for each instruction set,
// FASTAMR_ROW_KERNELS being the name of the table it defines.
#include <cmath>

#include "row_functions.h"
#include "row_kernels.h"

namespace fastamr {
namespace {

template <class T>
void gelu(const Gelu<T, float>& call, int64_t first, int64_t last, float*) {
  for (int64_t row = first; row < last; ++row) {
    const int64_t start = row * call.columns;
    gelu_row<T>(call.product + start, call.bias, call.h + start, call.slope == nullptr ? nullptr : call.slope + start,
                call.columns);
  }
}

void gelu(const Gelu<double, double>& call, int64_t first, int64_t last, double*) {
  for (int64_t i = first * call.columns; i < last * call.columns; ++i) {
    const double u = call.product[i] + call.bias[i % call.columns];
    const double below = 0.5 * std::erfc(-u * 0.70710678118654752440);
    call.h[i] = u * below;
    if (call.slope != nullptr) call.slope[i] = below + u * std::exp(-0.5 * u * u) * 0.39894228040143267794;
  }
}

template <class T, class C>
void gelu_backward(const GeluBackward<T, C>& call, int64_t first, int64_t last, C* sums) {
  for (int64_t row = first; row < last; ++row) {
    const int64_t start = row * call.columns;
    gelu_backward_row<T>(call.product + start, call.slope + start, call.du + start, sums, call.columns);
  }
}

template <class T, class C>
void norm(const Norm<T, C>& call, int64_t first, int64_t last, C*) {
  for (int64_t row = first; row < last; ++row) {
    const T* product = call.product + row * call.columns;
    T* total = call.total == nullptr ? nullptr : call.total + row * call.columns;
    if (total != nullptr) add_row(call, row, product, total);
    standardise_row(call, row, total == nullptr ? product : total);
  }
}

template <class T, class C>
void norm_backward(const NormBackward<T, C>& call, int64_t first, int64_t last, C* sums) {
  for (int64_t row = first; row < last; ++row) norm_backward_row(call, row, call.product + row * call.columns, sums);
}

template <class T, class C>
constexpr RowFunctions<T, C> row_functions() {
  return {gelu, gelu_backward<T, C>, norm<T, C>, norm_backward<T, C>};
}

}  // namespace

extern const RowKernels FASTAMR_ROW_KERNELS = {
    FASTAMR_KERNELS_NAME,
    row_functions<float, float>(),
    row_functions<BFloat16, float>(),
    row_functions<double, double>(),
};

}  // namespace fastamr
