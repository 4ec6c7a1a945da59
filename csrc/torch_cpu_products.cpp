// The products on the processor's matrix unit as raw torch functions through the stable ABI, each with the pass over
// rows that follows it. Sizes, dtypes and contiguity are checked here once more.
#include <torch/csrc/stable/library.h>

#include "cpu/product_kernels.h"
#include "torch_tensors.h"

namespace fastamr {
namespace {

// Call function(T, functions) with the storage type, as a null pointer, and its table.
template <class Function>
void with_type(const Tensor& rows, const Function& function) {
  const ProductKernels* kernels = product_kernels();
  STD_TORCH_CHECK(kernels != nullptr, "this processor has no matrix unit: ask has_matrix_unit first");
  if (rows.scalar_type() == ScalarType::Float) return function(static_cast<float*>(nullptr), kernels->of_float);
  STD_TORCH_CHECK(rows.scalar_type() == ScalarType::BFloat16, "the matrix unit covers float32 and bfloat16");
  function(static_cast<BFloat16*>(nullptr), kernels->of_bfloat16);
}

// `columns` in the weight's first dimension, as a linear layer holds it, if transposed, else in its second.
template <class T>
Product<T> product_of(const Tensor& x, const Tensor& weight, bool transposed, int64_t parts) {
  STD_TORCH_CHECK(x.dim() == 2 && weight.dim() == 2, "x and weight must be matrices");
  STD_TORCH_CHECK(weight.size(transposed ? 1 : 0) == x.size(1), "x has ", x.size(1), " columns, weight takes ",
                  weight.size(transposed ? 1 : 0));
  STD_TORCH_CHECK(parts >= 1 && parts <= 3, "parts must be 1, 2 or 3, got ", parts);
  Product<T> product;
  product.rows = x.size(0);
  product.inner = x.size(1);
  product.columns = weight.size(transposed ? 0 : 1);
  product.x = data_of<const T>(x, product.rows * product.inner, "x");
  product.weight = data_of<const T>(weight, product.columns * product.inner, "weight");
  product.transposed = transposed;
  product.parts = static_cast<int>(parts);
  return product;
}

template <class Pass, class T>
Pass pass_of(const Product<T>& product) {
  Pass pass;
  pass.rows = product.rows;
  pass.columns = product.columns;
  return pass;
}

void linear(const Tensor& x, const Tensor& weight, bool transposed, const Optional& bias, int64_t parts,
            const Tensor& out) {
  with_type(x, [&](auto* type, const auto& functions) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto product = product_of<T>(x, weight, transposed, parts);
    auto pass = pass_of<Linear<T, float>>(product);
    pass.bias = data_of<const float>(bias, pass.columns, "bias");
    pass.out = data_of<T>(out, pass.rows * pass.columns, "out");
    functions.linear(product, pass, nullptr, parallel);
  });
}

void gelu(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t parts, const Tensor& h,
          const Optional& slope) {
  with_type(x, [&](auto* type, const auto& functions) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto product = product_of<T>(x, weight, true, parts);
    auto pass = pass_of<Gelu<T, float>>(product);
    pass.bias = data_of<const float>(bias, pass.columns, "bias");
    pass.h = data_of<T>(h, pass.rows * pass.columns, "h");
    pass.slope = data_of<T>(slope, pass.rows * pass.columns, "slope");
    functions.gelu(product, pass, nullptr, parallel);
  });
}

void gelu_backward(const Tensor& upstream, const Tensor& weight, const Tensor& slope, int64_t parts, const Tensor& du,
                   const Tensor& sums) {
  with_type(upstream, [&](auto* type, const auto& functions) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto product = product_of<T>(upstream, weight, false, parts);
    auto pass = pass_of<GeluBackward<T, float>>(product);
    pass.slope = data_of<const T>(slope, pass.rows * pass.columns, "slope");
    pass.du = data_of<T>(du, pass.rows * pass.columns, "du");
    functions.gelu_backward(product, pass, data_of<float>(sums, pass.columns, "sums"), parallel);
  });
}

void norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual, const Tensor& gamma,
          const Tensor& beta, double eps, const Optional& scale, int64_t parts, const Tensor& total,
          const Tensor& normed, const Tensor& mean, const Tensor& rstd) {
  with_type(x, [&](auto* type, const auto& functions) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto product = product_of<T>(x, weight, true, parts);
    auto pass = pass_of<Norm<T, float>>(product);
    const int64_t count = pass.rows * pass.columns;
    pass.bias = data_of<const float>(bias, pass.columns, "bias");
    pass.residual = data_of<const T>(residual, count, "residual");
    pass.gamma = data_of<const float>(gamma, pass.columns, "gamma");
    pass.beta = data_of<const float>(beta, pass.columns, "beta");
    pass.eps = static_cast<float>(eps);
    pass.scale = data_of<const float>(scale, pass.rows, "scale");
    pass.total = data_of<T>(total, count, "total");
    pass.normed = data_of<T>(normed, count, "normed");
    pass.mean = data_of<float>(mean, pass.rows, "mean");
    pass.rstd = data_of<float>(rstd, pass.rows, "rstd");
    functions.norm(product, pass, nullptr, parallel);
  });
}

void norm_backward(const Tensor& upstream, const Tensor& weight, const Tensor& total, const Tensor& mean,
                   const Tensor& rstd, const Tensor& gamma, const Optional& skip, const Optional& scale,
                   int64_t parts, const Tensor& dx, const Optional& dbranch, const Tensor& sums) {
  with_type(upstream, [&](auto* type, const auto& functions) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto product = product_of<T>(upstream, weight, false, parts);
    auto pass = pass_of<NormBackward<T, float>>(product);
    const int64_t count = pass.rows * pass.columns;
    pass.total = data_of<const T>(total, count, "total");
    pass.mean = data_of<const float>(mean, pass.rows, "mean");
    pass.rstd = data_of<const float>(rstd, pass.rows, "rstd");
    pass.gamma = data_of<const float>(gamma, pass.columns, "gamma");
    pass.skip = data_of<const T>(skip, count, "skip");
    STD_TORCH_CHECK(scale.has_value() == dbranch.has_value(), "a scaled branch needs a place, and only that");
    pass.scale = data_of<const float>(scale, pass.rows, "scale");
    pass.dx = data_of<T>(dx, count, "dx");
    pass.dbranch = data_of<T>(dbranch, count, "dbranch");
    functions.norm_backward(product, pass, data_of<float>(sums, 3 * pass.columns, "sums"), parallel);
  });
}

void weight_gradient(const Tensor& upstream, const Tensor& x, int64_t parts, const Tensor& out) {
  with_type(upstream, [&](auto* type, const auto& functions) {
    using T = std::remove_pointer_t<decltype(type)>;
    STD_TORCH_CHECK(upstream.dim() == 2 && x.dim() == 2, "upstream and x must be matrices");
    STD_TORCH_CHECK(parts >= 1 && parts <= 3, "parts must be 1, 2 or 3, got ", parts);
    STD_TORCH_CHECK(upstream.size(0) == x.size(0), "upstream and x must have the same rows");
    WeightGradient<T> call;
    call.rows = upstream.size(0);
    call.outputs = upstream.size(1);
    call.inputs = x.size(1);
    call.upstream = data_of<const T>(upstream, call.rows * call.outputs, "upstream");
    call.x = data_of<const T>(x, call.rows * call.inputs, "x");
    call.out = data_of<float>(out, call.outputs * call.inputs, "out");
    call.parts = static_cast<int>(parts);
    functions.weight_gradient(call, parallel);
  });
}

bool has_matrix_unit() { return product_kernels() != nullptr; }

}  // namespace
}  // namespace fastamr

STABLE_TORCH_LIBRARY_FRAGMENT(fastamr_native, m) {
  m.def("has_matrix_unit() -> bool");
  m.def(
      "linear_product_cpu(Tensor x, Tensor weight, bool transposed, Tensor? bias, int parts, Tensor(a!) out) -> ()");
  m.def(
      "gelu_product_cpu(Tensor x, Tensor weight, Tensor bias, int parts, Tensor(a!) h, Tensor(b!)? slope) -> ()");
  m.def(
      "gelu_backward_product_cpu(Tensor upstream, Tensor weight, Tensor slope, int parts, Tensor(a!) du, "
      "Tensor(b!) sums) -> ()");
  m.def(
      "norm_product_cpu(Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor gamma, Tensor beta, float eps, "
      "Tensor? scale, int parts, Tensor(a!) total, Tensor(b!) normed, Tensor(c!) mean, Tensor(d!) rstd) -> ()");
  m.def(
      "norm_backward_product_cpu(Tensor upstream, Tensor weight, Tensor total, Tensor mean, Tensor rstd, Tensor gamma, "
      "Tensor? skip, Tensor? scale, int parts, Tensor(a!) dx, Tensor(b!)? dbranch, Tensor(c!) sums) -> ()");
  m.def("weight_gradient_cpu(Tensor upstream, Tensor x, int parts, Tensor(a!) out) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastamr_native, CompositeExplicitAutograd, m) {
  m.impl("has_matrix_unit", TORCH_BOX(&fastamr::has_matrix_unit));
}

STABLE_TORCH_LIBRARY_IMPL(fastamr_native, CPU, m) {
  m.impl("linear_product_cpu", TORCH_BOX(&fastamr::linear));
  m.impl("gelu_product_cpu", TORCH_BOX(&fastamr::gelu));
  m.impl("gelu_backward_product_cpu", TORCH_BOX(&fastamr::gelu_backward));
  m.impl("norm_product_cpu", TORCH_BOX(&fastamr::norm));
  m.impl("norm_backward_product_cpu", TORCH_BOX(&fastamr::norm_backward));
  m.impl("weight_gradient_cpu", TORCH_BOX(&fastamr::weight_gradient));
}
