// The row passes as functions of tensors, which check sizes, dtypes and contiguity; see row_passes.h for the arguments.
#pragma once

#include "torch_tensors.h"

namespace fastamr {

void gelu(const Tensor& product, const Tensor& bias, const Tensor& h, const Optional& slope);

void gelu_backward(const Tensor& product, const Tensor& slope, const Tensor& du, const Tensor& sums);

void norm(const Tensor& product, const Optional& bias, const Optional& residual, const Tensor& gamma,
          const Tensor& beta, double eps, const Optional& scale, const Optional& total, const Tensor& normed,
          const Tensor& mean, const Tensor& rstd);

void norm_backward(const Tensor& product, const Tensor& total, const Tensor& mean, const Tensor& rstd,
                   const Tensor& gamma, const Optional& skip, const Optional& scale, const Tensor& dx,
                   const Optional& dbranch, const Tensor& sums);

}  // namespace fastamr
