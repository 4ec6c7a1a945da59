// What the adapters share: data of tensors, checked, because a wrong size would write outside one. What a user sees is
// checked in fastamr/ops.
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
constexpr ScalarType type_of = std::is_same_v<T, double>     ? ScalarType::Double
                               : std::is_same_v<T, BFloat16> ? ScalarType::BFloat16
                               : std::is_same_v<T, int32_t>  ? ScalarType::Int
                               : std::is_same_v<T, int64_t>  ? ScalarType::Long
                                                             : ScalarType::Float;

// Data of a contiguous tensor of `count` elements of type T, on the CPU or on a GPU.
template <class T, bool Gpu = false>
T* data_of(const Tensor& tensor, int64_t count, const char* name) {
  STD_TORCH_CHECK((Gpu ? tensor.is_cuda() : tensor.is_cpu()) && tensor.is_contiguous() && tensor.numel() == count &&
                      tensor.scalar_type() == type_of<std::remove_const_t<T>>,
                  name, " must be a contiguous ", Gpu ? "CUDA" : "CPU", " tensor of ", count,
                  " elements of the expected dtype");
  return static_cast<T*>(const_cast<void*>(tensor.const_data_ptr()));
}

// The same of a tensor that may be absent, which alone is null: the data of a tensor without elements, which torch calls
// null too, is an address that nothing is read from.
template <class T, bool Gpu = false>
T* data_of(const Optional& tensor, int64_t count, const char* name) {
  if (!tensor.has_value()) return nullptr;
  T* data = data_of<T, Gpu>(*tensor, count, name);
  alignas(64) static std::remove_const_t<T> nothing[1];
  return data == nullptr ? nothing : data;
}

// Call function(T, C) with the storage and the compute type of a dtype, as null pointers.
template <class Function>
void with_types(ScalarType type, const Function& function) {
  switch (type) {
    case ScalarType::Float:
      return function(static_cast<float*>(nullptr), static_cast<float*>(nullptr));
    case ScalarType::BFloat16:
      return function(static_cast<BFloat16*>(nullptr), static_cast<float*>(nullptr));
    case ScalarType::Double:
      return function(static_cast<double*>(nullptr), static_cast<double*>(nullptr));
    default:
      STD_TORCH_CHECK(false, "the CPU kernels cover float32, bfloat16 and float64");
  }
}

}  // namespace fastamr
