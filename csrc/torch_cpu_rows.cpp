// The row passes as raw torch functions through the stable ABI. Sizes, dtypes and contiguity are checked here once
// more, because a wrong one would write outside a tensor; what a user sees is checked in fastamr/ops.
#include <torch/csrc/stable/library.h>

#include "cpu/row_kernels.h"
#include "torch_tensors.h"

namespace fastamr {
namespace {

template <class Call>
Call sized(const Tensor& matrix) {
  STD_TORCH_CHECK(matrix.dim() == 2, "rows must form a matrix, got ", matrix.dim(), " dimensions");
  Call call;
  call.rows = matrix.size(0);
  call.columns = matrix.size(1);
  return call;
}

void gelu(const Tensor& product, const Tensor& bias, const Tensor& h, const Optional& slope) {
  with_types(product.scalar_type(), [&](auto* storage, auto* compute) {
    using T = std::remove_pointer_t<decltype(storage)>;
    using C = std::remove_pointer_t<decltype(compute)>;
    auto call = sized<Gelu<T, C>>(product);
    const int64_t count = call.rows * call.columns;
    call.product = data_of<const T>(product, count, "product");
    call.bias = data_of<const C>(bias, call.columns, "bias");
    call.h = data_of<T>(h, count, "h");
    call.slope = data_of<T>(slope, count, "slope");
    run_rows(functions_of<T>(best_row_kernels()).gelu, call, nullptr, parallel);
  });
}

void gelu_backward(const Tensor& product, const Tensor& slope, const Tensor& du, const Tensor& sums) {
  with_types(product.scalar_type(), [&](auto* storage, auto* compute) {
    using T = std::remove_pointer_t<decltype(storage)>;
    using C = std::remove_pointer_t<decltype(compute)>;
    auto call = sized<GeluBackward<T, C>>(product);
    const int64_t count = call.rows * call.columns;
    call.product = data_of<const T>(product, count, "product");
    call.slope = data_of<const T>(slope, count, "slope");
    call.du = data_of<T>(du, count, "du");
    run_rows(functions_of<T>(best_row_kernels()).gelu_backward, call, data_of<C>(sums, call.columns, "sums"), parallel);
  });
}

void norm(const Tensor& product, const Optional& bias, const Optional& residual, const Tensor& gamma,
          const Tensor& beta, double eps, const Optional& scale, const Optional& total, const Tensor& normed,
          const Tensor& mean, const Tensor& rstd) {
  with_types(product.scalar_type(), [&](auto* storage, auto* compute) {
    using T = std::remove_pointer_t<decltype(storage)>;
    using C = std::remove_pointer_t<decltype(compute)>;
    auto call = sized<Norm<T, C>>(product);
    const int64_t count = call.rows * call.columns;
    STD_TORCH_CHECK(total.has_value() || !(bias.has_value() || residual.has_value() || scale.has_value()),
                    "what is added to the product is the total, which needs a place");
    call.product = data_of<const T>(product, count, "product");
    call.bias = data_of<const C>(bias, call.columns, "bias");
    call.residual = data_of<const T>(residual, count, "residual");
    call.gamma = data_of<const C>(gamma, call.columns, "gamma");
    call.beta = data_of<const C>(beta, call.columns, "beta");
    call.eps = static_cast<C>(eps);
    call.scale = data_of<const C>(scale, call.rows, "scale");
    call.total = data_of<T>(total, count, "total");
    call.normed = data_of<T>(normed, count, "normed");
    call.mean = data_of<C>(mean, call.rows, "mean");
    call.rstd = data_of<C>(rstd, call.rows, "rstd");
    run_rows(functions_of<T>(best_row_kernels()).norm, call, nullptr, parallel);
  });
}

void norm_backward(const Tensor& product, const Tensor& total, const Tensor& mean, const Tensor& rstd,
                   const Tensor& gamma, const Optional& skip, const Optional& scale, const Tensor& dx,
                   const Optional& dbranch, const Tensor& sums) {
  with_types(product.scalar_type(), [&](auto* storage, auto* compute) {
    using T = std::remove_pointer_t<decltype(storage)>;
    using C = std::remove_pointer_t<decltype(compute)>;
    auto call = sized<NormBackward<T, C>>(product);
    const int64_t count = call.rows * call.columns;
    call.product = data_of<const T>(product, count, "product");
    call.total = data_of<const T>(total, count, "total");
    call.mean = data_of<const C>(mean, call.rows, "mean");
    call.rstd = data_of<const C>(rstd, call.rows, "rstd");
    call.gamma = data_of<const C>(gamma, call.columns, "gamma");
    call.skip = data_of<const T>(skip, count, "skip");
    STD_TORCH_CHECK(scale.has_value() == dbranch.has_value(), "a scaled branch needs a place, and only that");
    call.scale = data_of<const C>(scale, call.rows, "scale");
    call.dx = data_of<T>(dx, count, "dx");
    call.dbranch = data_of<T>(dbranch, count, "dbranch");
    run_rows(functions_of<T>(best_row_kernels()).norm_backward, call, data_of<C>(sums, 3 * call.columns, "sums"), parallel);
  });
}

}  // namespace
}  // namespace fastamr

STABLE_TORCH_LIBRARY_FRAGMENT(fastamr_native, m) {
  m.def("gelu_rows_cpu(Tensor(a!) product, Tensor bias, Tensor(b!) h, Tensor(c!)? slope) -> ()");
  m.def("gelu_backward_rows_cpu(Tensor(a!) product, Tensor slope, Tensor(b!) du, Tensor(c!) sums) -> ()");
  m.def(
      "norm_rows_cpu(Tensor(a!) product, Tensor? bias, Tensor? residual, Tensor gamma, Tensor beta, float eps, "
      "Tensor? scale, Tensor(b!)? total, Tensor(c!) normed, Tensor(d!) mean, Tensor(e!) rstd) -> ()");
  m.def(
      "norm_backward_rows_cpu(Tensor(a!) product, Tensor total, Tensor mean, Tensor rstd, Tensor gamma, "
      "Tensor? skip, Tensor? scale, Tensor(b!) dx, Tensor(c!)? dbranch, Tensor(d!) sums) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastamr_native, CPU, m) {
  m.impl("gelu_rows_cpu", TORCH_BOX(&fastamr::gelu));
  m.impl("gelu_backward_rows_cpu", TORCH_BOX(&fastamr::gelu_backward));
  m.impl("norm_rows_cpu", TORCH_BOX(&fastamr::norm));
  m.impl("norm_backward_rows_cpu", TORCH_BOX(&fastamr::norm_backward));
}
