// The CUDA kernels as raw torch functions through the stable ABI. Shapes, dtypes and strides are checked here
// once more, because a wrong one would write outside a tensor; ids stay on the device and are the caller's to
// check.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "cuda/visible_attention.h"
#include "torch_arguments.h"

namespace fastamr {
namespace {

using torch::headeronly::ScalarType;

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
Rows<T> rows_of(const Tensor& tensor, const Shape& shape, int64_t rows, ScalarType type, const char* name) {
  const int64_t rank = tensor.dim();
  STD_TORCH_CHECK(tensor.is_cuda() && tensor.scalar_type() == type, name,
                  " must be on the GPU and of q's dtype");
  STD_TORCH_CHECK((rank == 3 || (rank == 4 && tensor.size(0) == shape.sequences)) &&
                      tensor.size(rank - 3) == rows && tensor.size(rank - 2) == shape.heads &&
                      tensor.size(rank - 1) == shape.size,
                  name, " must have shape (", shape.sequences, ", ", rows, ", ", shape.heads, ", ",
                  shape.size, "), or with cu_seqlens the same without the first");
  STD_TORCH_CHECK(is_aligned(tensor), name, " must start on 16 bytes, with strides that are multiples of 8");
  T* data = static_cast<T*>(const_cast<void*>(tensor.const_data_ptr()));
  return {data, rank == 4 ? tensor.stride(0) : 0, tensor.stride(rank - 3), tensor.stride(rank - 2)};
}

// Data of an optional contiguous tensor of `count` elements and this dtype, or null.
template <class T>
T* data_of(const Optional& tensor, ScalarType type, int64_t count, const char* name) {
  if (!tensor.has_value()) return nullptr;
  STD_TORCH_CHECK(tensor->is_cuda() && tensor->is_contiguous() && tensor->scalar_type() == type &&
                      tensor->numel() == count,
                  name, " must be a contiguous CUDA tensor of ", count, " elements of the expected dtype");
  return static_cast<T*>(const_cast<void*>(tensor->const_data_ptr()));
}

Structure<float> structure_of(const Arguments& given, const Shape& shape) {
  Structure<float> structure;
  const int64_t sequences = shape.sequences;
  structure.self_attention = given.self_attention;
  structure.keep = data_of<int32_t>(given.keep, ScalarType::Int, sequences * shape.keys, "keep");
  structure.counts = data_of<int32_t>(given.counts, ScalarType::Int, sequences, "counts");
  structure.cu_seqlens = data_of<int32_t>(given.cu_seqlens, ScalarType::Int, sequences + 1, "cu_seqlens");
  if (given.joint_bias.has_value()) {
    STD_TORCH_CHECK(
        given.time_bias.has_value() && given.joint_bias->dim() == 3 && given.time_bias->dim() == 2,
        "joint_bias (H, V, V) needs time_bias (H, R)");
    structure.joints = static_cast<int>(given.joint_bias->size(1));
    structure.offsets = static_cast<int>(given.time_bias->size(1));
    STD_TORCH_CHECK(structure.joints < 65536 && structure.offsets < 65536, "the bias tables are too large");
    const int64_t pairs = int64_t{structure.joints} * structure.joints;
    structure.joint_bias =
        data_of<float>(given.joint_bias, ScalarType::Float, shape.heads * pairs, "joint_bias");
    structure.time_bias =
        data_of<float>(given.time_bias, ScalarType::Float, shape.heads * structure.offsets, "time_bias");
    structure.query_ids =
        data_of<int32_t>(given.query_ids, ScalarType::Int, sequences * shape.queries, "query_ids");
    structure.key_ids = data_of<int32_t>(given.key_ids, ScalarType::Int, sequences * shape.keys, "key_ids");
  }
  if (given.dropout > 0) {
    structure.seed = data_of<int64_t>(given.seed, ScalarType::Long, 2, "seed");
    STD_TORCH_CHECK(structure.seed != nullptr, "dropout needs a seed");
    structure.threshold = static_cast<uint32_t>(std::nearbyint(given.dropout * 4294967296.0));
    structure.inverse_kept = static_cast<float>(1 / (1 - given.dropout));
  }
  structure.scale = static_cast<float>(given.scale);
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
    const int64_t query_rows = self_attention ? shape.key_rows : shape.queries;
    Forward<T, float> call;
    call.shape = shape;
    call.structure = structure_of(given, shape);
    call.q = rows_of<const T>(q, shape, query_rows, type, "q");
    call.k = rows_of<const T>(k, shape, shape.key_rows, type, "k");
    call.v = rows_of<const T>(v, shape, shape.key_rows, type, "v");
    call.out = rows_of<T>(out, shape, shape.queries, type, "out");
    const int64_t statistics = (cu_seqlens.has_value() ? 1 : shape.sequences) * shape.heads * shape.queries;
    call.lse = data_of<float>(lse, ScalarType::Float, statistics, "lse");
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
    const int64_t query_rows = self_attention ? shape.key_rows : shape.queries;
    Backward<T, float> call;
    call.shape = shape;
    call.structure = structure_of(given, shape);
    call.dout = rows_of<const T>(dout, shape, shape.queries, type, "dout");
    call.q = rows_of<const T>(q, shape, query_rows, type, "q");
    call.k = rows_of<const T>(k, shape, shape.key_rows, type, "k");
    call.v = rows_of<const T>(v, shape, shape.key_rows, type, "v");
    call.out = rows_of<const T>(out, shape, shape.queries, type, "out");
    call.dq = rows_of<T>(dq, shape, query_rows, type, "dq");
    call.dk = rows_of<T>(dk, shape, shape.key_rows, type, "dk");
    call.dv = rows_of<T>(dv, shape, shape.key_rows, type, "dv");
    const int64_t statistics = (cu_seqlens.has_value() ? 1 : shape.sequences) * shape.heads * shape.queries;
    call.lse = data_of<float>(lse, ScalarType::Float, statistics, "lse");
    call.columns = data_of<float>(columns, ScalarType::Float, 3 * shape.heads * shape.size, "columns");
    const Structure<float>& structure = call.structure;
    const int64_t pairs = int64_t{structure.joints} * structure.joints;
    call.joint_gradient = data_of<float>(djoint, ScalarType::Float, shape.heads * pairs, "djoint");
    call.time_gradient = data_of<float>(dtime, ScalarType::Float, shape.heads * structure.offsets, "dtime");
    STD_TORCH_CHECK((call.joint_gradient == nullptr) == (call.time_gradient == nullptr),
                    "djoint and dtime come together");
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
  m.def(
      "visible_attention_forward_cuda(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!) lse, Tensor? "
      "keep, "
      "Tensor? counts, Tensor? cu_seqlens, Tensor? joint_bias, Tensor? time_bias, Tensor? query_ids, Tensor? "
      "key_ids, "
      "Tensor? seed, float scale, float dropout, bool self_attention) -> ()");
  m.def(
      "visible_attention_backward_cuda(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
      "Tensor(a!) dq, Tensor(b!) dk, Tensor(c!) dv, Tensor(d!)? columns, Tensor(e!)? djoint, Tensor(f!)? "
      "dtime, "
      "Tensor? keep, Tensor? counts, Tensor? cu_seqlens, Tensor? joint_bias, Tensor? time_bias, Tensor? "
      "query_ids, "
      "Tensor? key_ids, Tensor? seed, float scale, float dropout, bool self_attention) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastamr_native, CUDA, m) {
  m.impl("visible_attention_forward_cuda", TORCH_BOX(&fastamr::forward));
  m.impl("visible_attention_backward_cuda", TORCH_BOX(&fastamr::backward));
}
