// What a layer of a stack computes between two attentions, in one call: the library's products and the row passes, one
// right after the other, so that the threads which wait for the next parallel region need not sleep. The same
// functions in the same order as op by op, so the same bits.
#include <torch/csrc/stable/library.h>

#include <array>
#include <string>
#include <vector>

#include "torch_cpu_rows.h"

namespace fastamr {
namespace {

using torch::stable::detail::from;
using torch::stable::detail::to;
using Tensors = std::vector<Tensor>;

Tensor mm(const Tensor& x, const Tensor& y) {
  std::array<StableIValue, 2> stack{from(x), from(y)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "", stack.data(), TORCH_ABI_VERSION));
  return to<Tensor>(stack[0]);
}

// x @ weight.T + bias by oneDNN; weight (F, D), of any strides.
Tensor onednn(const Tensor& x, const Tensor& weight, const Optional& bias) {
  std::array<StableIValue, 6> stack{
      from(x), from(weight), from(bias), from(std::string("none")), from(std::vector<std::optional<double>>()),
      from(std::optional<std::string>(std::string()))};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("mkldnn::_linear_pointwise", "", stack.data(), TORCH_ABI_VERSION));
  return to<Tensor>(stack[0]);
}

Tensor transposed(const Tensor& matrix) { return torch::stable::transpose(matrix, 0, 1); }

// x @ weight.T, see fastamr/ops/common/products.py.
Tensor product(const Tensor& x, const Tensor& weight, bool by_onednn) {
  return by_onednn && x.numel() > 0 ? onednn(x, weight, std::nullopt) : mm(x, transposed(weight));
}

Tensor product_backward(const Tensor& upstream, const Tensor& weight, bool by_onednn) {
  return by_onednn && upstream.numel() > 0 ? onednn(upstream, transposed(weight), std::nullopt) : mm(upstream, weight);
}

// product + bias, see fastamr/ops/rows/row_linear.py.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, bool by_onednn) {
  if (by_onednn && x.numel() > 0) return onednn(x, weight, bias);
  const Tensor found = mm(x, transposed(weight));
  const int64_t rows = found.size(0), columns = found.size(1);
  float* out = data_of<float>(found, rows * columns, "a product");
  const float* add = data_of<const float>(bias, columns, "bias");
  torch::stable::parallel_for(0, rows, 64, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t column = 0; column < columns; ++column) out[row * columns + column] += add[column];
    }
  });
  return found;
}

Tensor weight_gradient(const Tensor& upstream, const Tensor& x) { return mm(transposed(upstream), x); }

// total = residual + scale * (x @ weight.T + bias), its norm, and the norm's mean and reciprocal deviation.
Tensors residual_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual,
                      const Tensor& gamma, const Tensor& beta, double eps, const Optional& scale, bool by_onednn) {
  const Tensor total = product(x, weight, by_onednn), normed = torch::stable::empty_like(total);
  const Tensor mean = torch::stable::new_empty(total, {total.size(0)}), rstd = torch::stable::empty_like(mean);
  norm(total, bias, residual, gamma, beta, eps, scale, total, normed, mean, rstd);
  return {total, normed, mean, rstd};
}

// dx, the sums (3, D) and the gradient of the scaled branch, which is dx without a scale.
Tensors residual_norm_backward(const Tensor& upstream, const Tensor& weight, const Tensor& total, const Tensor& mean,
                               const Tensor& rstd, const Tensor& gamma, const Optional& skip, const Optional& scale,
                               bool by_onednn) {
  const Tensor dx = product_backward(upstream, weight, by_onednn);
  const Tensor sums = torch::stable::new_empty(dx, {3, dx.size(1)});
  Optional dbranch;
  if (scale.has_value()) dbranch = torch::stable::empty_like(dx);
  norm_backward(dx, total, mean, rstd, gamma, skip, scale, dx, dbranch, sums);
  return {dx, sums, dbranch.has_value() ? *dbranch : dx};
}

Tensors layer_end(const Tensor& attended, const Tensor& out_weight, const Tensor& out_bias, const Tensor& residual,
                  const Tensor& gamma2, const Tensor& beta2, double eps2, const Optional& scale1,
                  const Tensor& fc1_weight, const Tensor& fc1_bias, const Tensor& fc2_weight, const Tensor& fc2_bias,
                  const Tensor& gamma, const Tensor& beta, double eps, const Optional& scale2,
                  const Optional& project_weight, const Optional& project_bias, bool saves, bool by_onednn) {
  Tensors found = residual_norm(attended, out_weight, out_bias, residual, gamma2, beta2, eps2, scale1, by_onednn);
  const Tensor h = product(found[1], fc1_weight, by_onednn);
  Optional slope;
  if (saves) slope = torch::stable::empty_like(h);
  gelu(h, fc1_bias, h, slope);
  const Tensors after = residual_norm(h, fc2_weight, fc2_bias, found[0], gamma, beta, eps, scale2, by_onednn);
  found.insert(found.end(), after.begin(), after.end());
  if (saves) found.insert(found.end(), {h, *slope});
  if (project_weight.has_value()) {
    STD_TORCH_CHECK(project_bias.has_value(), "a projection needs its bias");
    found.push_back(linear(after[1], *project_weight, *project_bias, by_onednn));
  }
  return found;
}

Tensors layer_end_backward(const Tensor& branch, const Tensor& skip, const Tensor& h, const Tensor& slope,
                           const Tensor& fc2_weight, const Tensor& total, const Tensor& normed, const Tensor& mean,
                           const Tensor& rstd, const Tensor& fc1_weight, const Tensor& gamma2, const Optional& scale1,
                           const Tensor& attended, const Tensor& out_weight, bool by_onednn) {
  const Tensor dfc2 = weight_gradient(branch, h), du = product_backward(branch, fc2_weight, by_onednn);
  const Tensor sums = torch::stable::new_empty(du, {du.size(1)});
  gelu_backward(du, slope, du, sums);
  const Tensor dfc1 = weight_gradient(du, normed);
  const Tensors middle =
      residual_norm_backward(du, fc1_weight, total, mean, rstd, gamma2, skip, scale1, by_onednn);
  const Tensor dout = weight_gradient(middle[2], attended);
  return {dfc2, sums, dfc1, middle[0], middle[1], middle[2], dout, product_backward(middle[2], out_weight, by_onednn)};
}

Tensors layer_begin_backward(const Tensor& rows, const Tensor& weight, const Tensor& total, const Tensor& normed,
                             const Tensor& mean, const Tensor& rstd, const Tensor& gamma, const Optional& skip,
                             const Optional& scale, bool by_onednn) {
  const Tensor dweight = weight_gradient(rows, normed);
  const Tensors before = residual_norm_backward(rows, weight, total, mean, rstd, gamma, skip, scale, by_onednn);
  return {dweight, before[0], before[1], before[2]};
}

}  // namespace
}  // namespace fastamr

STABLE_TORCH_LIBRARY_FRAGMENT(fastamr_native, m) {
  m.def(
      "layer_end_cpu(Tensor attended, Tensor out_weight, Tensor out_bias, Tensor residual, Tensor gamma2, "
      "Tensor beta2, float eps2, Tensor? scale1, Tensor fc1_weight, Tensor fc1_bias, Tensor fc2_weight, "
      "Tensor fc2_bias, Tensor gamma, Tensor beta, float eps, Tensor? scale2, Tensor? project_weight, "
      "Tensor? project_bias, bool saves, bool by_onednn) -> Tensor[]");
  m.def(
      "layer_end_backward_cpu(Tensor branch, Tensor skip, Tensor h, Tensor slope, Tensor fc2_weight, Tensor total, "
      "Tensor normed, Tensor mean, Tensor rstd, Tensor fc1_weight, Tensor gamma2, Tensor? scale1, Tensor attended, "
      "Tensor out_weight, bool by_onednn) -> Tensor[]");
  m.def(
      "layer_begin_backward_cpu(Tensor rows, Tensor weight, Tensor total, Tensor normed, Tensor mean, Tensor rstd, "
      "Tensor gamma, Tensor? skip, Tensor? scale, bool by_onednn) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(fastamr_native, CPU, m) {
  m.impl("layer_end_cpu", TORCH_BOX(&fastamr::layer_end));
  m.impl("layer_end_backward_cpu", TORCH_BOX(&fastamr::layer_end_backward));
  m.impl("layer_begin_backward_cpu", TORCH_BOX(&fastamr::layer_begin_backward));
}
