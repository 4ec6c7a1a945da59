// The CUDA kernels as raw torch functions through the stable ABI. Shapes, dtypes and strides are checked here
// once more, because a wrong one would write outside a tensor; ids stay on the device and are the caller's to
// check.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <limits>
#include <vector>

#include "cuda/visible_attention.h"
#include "torch_arguments.h"

namespace fastamr {
namespace {

// The kernels move 16 bytes at a time.
bool is_aligned(const Tensor& tensor) {
  if (reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 != 0) return false;
  for (int64_t d = 0; d + 1 < tensor.dim(); ++d) {
    if (tensor.stride(d) % 8 != 0 && tensor.size(d) > 1) return false;
  }
  return tensor.numel() == 0 || tensor.stride(tensor.dim() - 1) == 1;
}

// An input as the kernels can read it: itself, or a copy.
Tensor readable(const Tensor& tensor) {
  if (is_aligned(tensor)) return tensor;
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d < tensor.dim(); ++d) sizes.push_back(tensor.size(d));
  Tensor copy = torch::stable::new_empty(tensor, sizes);
  torch::stable::copy_(copy, tensor);
  return copy;
}

// A view (S, N, H, E), or (total, H, E) with stride 0 over sequences, of `rows` rows.
template <class T>
Rows<T> rows_of(const Tensor& tensor, const Shape& shape, bool packed, int64_t rows, ScalarType type,
                const char* name) {
  const int64_t rank = tensor.dim();
  STD_TORCH_CHECK(tensor.is_cuda(), name, " must be on the GPU");
  check_rows(tensor, shape, packed, rows, type, !std::is_const_v<T>, name);
  STD_TORCH_CHECK(is_aligned(tensor), name, " must start on 16 bytes, with strides that are multiples of 8");
  T* data = static_cast<T*>(const_cast<void*>(tensor.const_data_ptr()));
  return {data, rank == 4 ? tensor.stride(0) : 0, tensor.stride(rank - 3), tensor.stride(rank - 2)};
}

Structure<float> checked_structure(const Arguments& given, const Shape& shape) {
  const Structure<float> structure = structure_of<float, true>(given, shape);
  STD_TORCH_CHECK(structure.joint_bias == nullptr || structure.joints > 0, "joint_bias is empty");
  return structure;
}

bool is_empty(const Shape& shape) {
  return shape.sequences == 0 || shape.heads == 0 || shape.queries == 0 || shape.keys == 0;
}

void clear(Tensor tensor) {
  if (tensor.numel() > 0) torch::stable::zero_(tensor);
}

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream) == 0,
                  "torch names no current CUDA stream");
  return static_cast<cudaStream_t>(stream);
}

void check(cudaError_t error, const char* what) {
  STD_TORCH_CHECK(error == cudaSuccess, what, " could not be launched: ", cudaGetErrorString(error));
}

// Calls function(T) with the storage type of a dtype, as a null pointer.
template <class Function>
void with_type(ScalarType type, const Function& function) {
  if (type == ScalarType::BFloat16) return function(static_cast<gpu::Bfloat16*>(nullptr));
  STD_TORCH_CHECK(type == ScalarType::Half, "the CUDA kernel covers float16 and bfloat16");
  function(static_cast<gpu::Half*>(nullptr));
}

void forward(const Tensor& q_given, const Tensor& k_given, const Tensor& v_given, const Tensor& out,
             const Tensor& lse, const Optional& keep, const Optional& counts, const Optional& cu_seqlens,
             const Optional& joint_bias, const Optional& time_bias, const Optional& query_ids,
             const Optional& key_ids, const Optional& seed, double scale, double dropout,
             bool self_attention) {
  const torch::stable::accelerator::DeviceGuard guard(q_given.get_device_index());
  const Tensor q = readable(q_given), k = readable(k_given), v = readable(v_given);
  const Arguments given{q,         k,       keep, counts, cu_seqlens, joint_bias,    time_bias,
                        query_ids, key_ids, seed, scale,  dropout,    self_attention};
  const Shape shape = shape_of(given);
  if (is_empty(shape)) {
    clear(out);
    if (lse.numel() > 0) torch::stable::fill_(lse, -std::numeric_limits<double>::infinity());
    return;
  }
  with_type(q.scalar_type(), [&](auto* storage) {
    using T = std::remove_pointer_t<decltype(storage)>;
    const ScalarType type = q.scalar_type();
    const bool packed = cu_seqlens.has_value();
    const int64_t rows = query_rows(shape, self_attention);
    Forward<T, float> call;
    call.shape = shape;
    call.structure = checked_structure(given, shape);
    call.q = rows_of<const T>(q, shape, packed, rows, type, "q");
    call.k = rows_of<const T>(k, shape, packed, shape.key_rows, type, "k");
    call.v = rows_of<const T>(v, shape, packed, shape.key_rows, type, "v");
    call.out = rows_of<T>(out, shape, packed, shape.queries, type, "out");
    call.lse = data_of<float, true>(lse, statistics_of(shape, packed), "lse");
    check(gpu::visible_attention_forward(call, current_stream(q)), "visible_attention_forward_cuda");
  });
}

void backward(const Tensor& dout_given, const Tensor& q_given, const Tensor& k_given, const Tensor& v_given,
              const Tensor& out_given, const Tensor& lse, const Tensor& dq, const Tensor& dk,
              const Tensor& dv, const Optional& columns, const Optional& djoint, const Optional& dtime,
              const Optional& keep, const Optional& counts, const Optional& cu_seqlens,
              const Optional& joint_bias, const Optional& time_bias, const Optional& query_ids,
              const Optional& key_ids, const Optional& seed, double scale, double dropout,
              bool self_attention) {
  const torch::stable::accelerator::DeviceGuard guard(q_given.get_device_index());
  const Tensor q = readable(q_given), k = readable(k_given), v = readable(v_given);
  const Tensor dout = readable(dout_given), out = readable(out_given);
  const Arguments given{q,         k,       keep, counts, cu_seqlens, joint_bias,    time_bias,
                        query_ids, key_ids, seed, scale,  dropout,    self_attention};
  const Shape shape = shape_of(given);
  const bool empty = is_empty(shape);
  if (empty || (keep.has_value() && self_attention)) clear(dq);
  if (empty || keep.has_value()) {
    clear(dk);
    clear(dv);
  }
  if (empty) {
    for (const Optional* sums : {&columns, &djoint, &dtime}) {
      if (sums->has_value()) clear(**sums);
    }
    return;
  }
  with_type(q.scalar_type(), [&](auto* storage) {
    using T = std::remove_pointer_t<decltype(storage)>;
    const ScalarType type = q.scalar_type();
    const bool packed = cu_seqlens.has_value();
    const int64_t rows = query_rows(shape, self_attention);
    Backward<T, float> call;
    call.shape = shape;
    call.structure = checked_structure(given, shape);
    call.dout = rows_of<const T>(dout, shape, packed, shape.queries, type, "dout");
    call.q = rows_of<const T>(q, shape, packed, rows, type, "q");
    call.k = rows_of<const T>(k, shape, packed, shape.key_rows, type, "k");
    call.v = rows_of<const T>(v, shape, packed, shape.key_rows, type, "v");
    call.out = rows_of<const T>(out, shape, packed, shape.queries, type, "out");
    call.dq = rows_of<T>(dq, shape, packed, rows, type, "dq");
    call.dk = rows_of<T>(dk, shape, packed, shape.key_rows, type, "dk");
    call.dv = rows_of<T>(dv, shape, packed, shape.key_rows, type, "dv");
    call.lse = data_of<float, true>(lse, statistics_of(shape, packed), "lse");
    add_sums<true>(call, columns, djoint, dtime);
    Tensor workspace;
    const int64_t floats = gpu::visible_attention_workspace(call);
    if (floats > 0) workspace = torch::stable::new_empty(lse, {floats});
    float* partials = floats > 0 ? static_cast<float*>(workspace.mutable_data_ptr()) : nullptr;
    check(gpu::visible_attention_backward(call, partials, current_stream(q)),
          "visible_attention_backward_cuda");
  });
}

}  // namespace
}  // namespace fastamr

STABLE_TORCH_LIBRARY_FRAGMENT(fastamr_native, m) {
  FASTAMR_DEFINE_ATTENTION(m, "cuda");
}

STABLE_TORCH_LIBRARY_IMPL(fastamr_native, CUDA, m) {
  m.impl("visible_attention_forward_cuda", TORCH_BOX(&fastamr::forward));
  m.impl("visible_attention_backward_cuda", TORCH_BOX(&fastamr::backward));
}
