#include "visible_attention.h"

#include "launch.h"

namespace fastamr::gpu {

// Instantiated in forward_*.cu and backward_*.cu.
#define FASTAMR_DECLARE(E)                                                                                \
  extern template cudaError_t launch_forward<Bfloat16, E>(const Forward<Bfloat16, float>&, cudaStream_t); \
  extern template cudaError_t launch_forward<Half, E>(const Forward<Half, float>&, cudaStream_t);         \
  extern template cudaError_t launch_backward<Bfloat16, E>(const Backward<Bfloat16, float>&, float*,      \
                                                           cudaStream_t);                                 \
  extern template cudaError_t launch_backward<Half, E>(const Backward<Half, float>&, float*, cudaStream_t);

FASTAMR_DECLARE(16)
FASTAMR_DECLARE(32)
FASTAMR_DECLARE(64)

namespace {

__global__ void __launch_bounds__(kReduceThreads)
    reduce_kernel(const float* partials, int64_t groups, int64_t width, float* out) {
  reduce_partials(partials, groups, width, out, blockIdx.x);
}

cudaError_t reduce(const float* partials, int64_t groups, int64_t width, float* out, cudaStream_t stream) {
  if (out == nullptr) return cudaSuccess;
  const auto ctas = static_cast<unsigned>((width + kReduceColumns - 1) / kReduceColumns);
  reduce_kernel<<<ctas, kReduceThreads, kReduceBytes, stream>>>(partials, groups, width, out);
  return cudaGetLastError();
}

}  // namespace

template <class T>
cudaError_t visible_attention_forward(const Forward<T, float>& call, cudaStream_t stream) {
  switch (call.shape.size) {
    case 16:
      return launch_forward<T, 16>(call, stream);
    case 32:
      return launch_forward<T, 32>(call, stream);
    case 64:
      return launch_forward<T, 64>(call, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

template <class T>
int64_t visible_attention_workspace(const Backward<T, float>& call) {
  return PartialSums::of(call).total();
}

template <class T>
cudaError_t visible_attention_backward(const Backward<T, float>& call, float* workspace,
                                       cudaStream_t stream) {
  cudaError_t error = cudaErrorInvalidValue;
  if (call.shape.size == 16) error = launch_backward<T, 16>(call, workspace, stream);
  if (call.shape.size == 32) error = launch_backward<T, 32>(call, workspace, stream);
  if (call.shape.size == 64) error = launch_backward<T, 64>(call, workspace, stream);
  if (error != cudaSuccess) return error;

  const PartialSums sums = PartialSums::of(call);
  const int64_t groups = backward_groups(call.shape, call.structure), heads = call.shape.heads;
  const int64_t joints = call.structure.joints;
  error = reduce(workspace, groups, 3 * heads * call.shape.size, call.columns, stream);
  if (error != cudaSuccess) return error;
  error = reduce(workspace + sums.columns, groups, heads * joints * joints, call.joint_gradient, stream);
  if (error != cudaSuccess) return error;
  return reduce(workspace + sums.columns + sums.joint, groups, heads * call.structure.offsets,
                call.time_gradient, stream);
}

#define FASTAMR_INSTANTIATE(T)                                                               \
  template cudaError_t visible_attention_forward<T>(const Forward<T, float>&, cudaStream_t); \
  template int64_t visible_attention_workspace<T>(const Backward<T, float>&);                \
  template cudaError_t visible_attention_backward<T>(const Backward<T, float>&, float*, cudaStream_t);

FASTAMR_INSTANTIATE(Bfloat16)
FASTAMR_INSTANTIATE(Half)

}  // namespace fastamr::gpu
