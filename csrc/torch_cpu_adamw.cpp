// AdamW on the CPU as a raw torch function through the stable ABI. Sizes, dtypes and strides are checked here once more,
// because a wrong one would write outside a tensor; what a user sees is checked in fastamr/ops.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <vector>

#include "cpu/adamw_kernels.h"
#include "torch_tensors.h"

namespace fastamr {
namespace {

using Tensors = std::vector<Tensor>;

// Whether a tensor's numbers fill its memory without holes, in the order of another's.
bool lies_like(const Tensor& tensor, const Tensor& other) {
  if (tensor.dim() != other.dim()) return false;
  int64_t span = 1;
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (tensor.size(i) != other.size(i)) return false;
    if (tensor.size(i) == 1) continue;
    if (tensor.stride(i) != other.stride(i) || tensor.stride(i) < 0) return false;
    span += (tensor.size(i) - 1) * tensor.stride(i);
  }
  return tensor.numel() == 0 || span == tensor.numel();
}

template <class T>
T* data_like(const Tensor& tensor, const Tensor& parameter, const char* name) {
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.scalar_type() == type_of<std::remove_const_t<T>> &&
                      lies_like(tensor, parameter),
                  name,
                  " must be on the CPU, of the expected dtype, and lie in memory as its parameter, without holes");
  return static_cast<T*>(const_cast<void*>(tensor.const_data_ptr()));
}

float* number_of(const Tensor& tensor, const char* name) { return data_of<float>(tensor, 1, name); }

std::vector<AdamwTensor> tensors_of(const Tensors& parameters, const Tensors& gradients, const Tensors& exp_avgs,
                                    const Tensors& exp_avg_sqs, const Tensors& working) {
  const size_t count = parameters.size();
  STD_TORCH_CHECK(gradients.size() == count && exp_avgs.size() == count && exp_avg_sqs.size() == count &&
                      (working.empty() || working.size() == count),
                  "each parameter needs a gradient, its state and, where there are copies, a copy");
  std::vector<AdamwTensor> tensors(count);
  for (size_t i = 0; i < count; ++i) {
    AdamwTensor& each = tensors[i];
    const Tensor& parameter = parameters[i];
    each.count = parameter.numel();
    each.parameter = data_like<float>(parameter, parameter, "a parameter");
    each.exp_avg = data_like<float>(exp_avgs[i], parameter, "exp_avg");
    each.exp_avg_sq = data_like<float>(exp_avg_sqs[i], parameter, "exp_avg_sq");
    if (gradients[i].scalar_type() == ScalarType::BFloat16) {
      each.low_gradient = data_like<const BFloat16>(gradients[i], parameter, "a gradient");
    } else {
      each.gradient = data_like<const float>(gradients[i], parameter, "a gradient");
    }
    if (!working.empty()) each.copy = data_like<BFloat16>(working[i], parameter, "a working copy");
  }
  return tensors;
}

// Advance the steps, and set what follows from them.
void count_steps(const Tensors& steps, const Tensors& lrs, const Tensor& decays, double beta1, double beta2,
                 std::vector<AdamwTensor>& tensors) {
  STD_TORCH_CHECK(steps.size() == tensors.size() && lrs.size() == tensors.size(),
                  "each parameter needs a step and an lr");
  const double* decay = data_of<const double>(decays, static_cast<int64_t>(tensors.size()), "decays");
  for (size_t i = 0; i < tensors.size(); ++i) {
    float* step = number_of(steps[i], "step");
    const double lr = *number_of(lrs[i], "lr");
    *step += 1;
    tensors[i].keep = static_cast<float>(1 - lr * decay[i]);
    tensors[i].size = static_cast<float>(lr / (1 - std::pow(beta1, double{*step})));
    tensors[i].root = static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, double{*step})));
  }
}

void adamw_update(const Tensors& parameters, const Tensors& gradients, const Tensors& exp_avgs,
                  const Tensors& exp_avg_sqs, const Tensors& steps, const Tensors& lrs, const Tensor& decays,
                  const Tensors& working, double beta1, double beta2, double eps, std::optional<double> max_norm,
                  const Optional& grad_scale, const Optional& found_inf, const Tensor& norm) {
  std::vector<AdamwTensor> tensors = tensors_of(parameters, gradients, exp_avgs, exp_avg_sqs, working);
  const std::vector<AdamwChunk> chunks = adamw_chunks(tensors);
  const AdamwKernels& kernels = best_adamw_kernels();
  double multiplier = grad_scale.has_value() ? 1 / double{*number_of(*grad_scale, "grad_scale")} : 1;
  if (max_norm.has_value()) {
    const double length = adamw_norm(kernels, chunks, parallel) * multiplier;
    *number_of(norm, "norm") = static_cast<float>(length);
    const double factor = *max_norm / (length + 1e-6);
    if (!(factor > 1)) multiplier *= factor;  // a factor of NaN too
  }
  if (found_inf.has_value() && *number_of(*found_inf, "found_inf") != 0) return;
  count_steps(steps, lrs, decays, beta1, beta2, tensors);
  adamw_run(kernels, chunks,
            {static_cast<float>(beta2), static_cast<float>(1 - beta1), static_cast<float>(1 - beta2),
             static_cast<float>(eps), static_cast<float>(multiplier)},
            parallel);
}

}  // namespace
}  // namespace fastamr

STABLE_TORCH_LIBRARY_FRAGMENT(fastamr_native, m) {
  m.def(
      "adamw_update_cpu(Tensor(a!)[] parameters, Tensor[] gradients, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, "
      "Tensor(d!)[] steps, Tensor[] lrs, Tensor decays, Tensor(e!)[] working, float beta1, float beta2, float eps, "
      "float? max_norm, Tensor? grad_scale, Tensor? found_inf, Tensor(f!) norm) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastamr_native, CPU, m) {
  m.impl("adamw_update_cpu", TORCH_BOX(&fastamr::adamw_update));
}
