// What the CPU adapters of the passes over rows share: data of tensors, checked, because a wrong size would write outside
// one. What a user sees is checked in fastamr/ops.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <type_traits>

#include "cpu/bfloat16.h"

namespace fastamr {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;

inline void parallel(int64_t tasks, const std::function<void(int64_t, int64_t)>& work) {
  torch::stable::parallel_for(0, tasks, 1, work);
}

template <class T>
constexpr ScalarType type_of = std::is_same_v<T, double>      ? ScalarType::Double
                               : std::is_same_v<T, BFloat16> ? ScalarType::BFloat16
                                                             : ScalarType::Float;

// Data of a contiguous CPU tensor of `count` elements of type T.
template <class T>
T* data_of(const Tensor& tensor, int64_t count, const char* name) {
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.is_contiguous() && tensor.numel() == count &&
                      tensor.scalar_type() == type_of<std::remove_const_t<T>>,
                  name, " must be a contiguous CPU tensor of ", count, " elements of the expected dtype");
  return static_cast<T*>(const_cast<void*>(tensor.const_data_ptr()));
}

template <class T>
T* data_of(const Optional& tensor, int64_t count, const char* name) {
  return tensor.has_value() ? data_of<T>(*tensor, count, name) : nullptr;
}

}  // namespace fastamr
