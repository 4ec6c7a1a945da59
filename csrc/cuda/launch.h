// The kernels and their launches; instantiated for one head size and direction in each forward_*.cu,
// backward_*.cu.
#pragma once

#include <cuda_runtime.h>

#include "plan.h"

namespace fastamr::gpu {

// CTAs on a multiprocessor that the registers must allow: four at the papers' 75 tokens.
template <int E, Form form>
constexpr int kBackwardCtas = !has_one_chunk<form>  ? 1
                              : E <= 32             ? 4
                              : form == Form::exact ? 2
                                                    : 1;

// Registers of a thread: 96 let four CTAs of five warps share a multiprocessor. A CTA has up to eight warps.
template <int E, Form form>
constexpr int kForwardRegisters = form == Form::full     ? 255
                                  : form == Form::medium ? (E <= 32 ? 128 : 168)
                                                         : (E <= 32 ? 96 : 128);

template <class T, int E, Form form>
__global__ void __maxnreg__((kForwardRegisters<E, form>))
    forward_kernel(const __grid_constant__ Forward<T, float> call, const __grid_constant__ ForwardPlan plan) {
  const unsigned heads = static_cast<unsigned>(call.shape.heads);
  attention_forward<T, E, form>(call, plan, static_cast<int>(blockIdx.x / heads),
                                static_cast<int>(blockIdx.x % heads));
}

template <class T, int E, Form form>
__global__ void __launch_bounds__(32 * kBackwardWarps<E, form>, kBackwardCtas<E, form>)
    backward_kernel(const __grid_constant__ Backward<T, float> call,
                    const __grid_constant__ BackwardPlan plan) {
  const unsigned heads = static_cast<unsigned>(call.shape.heads);
  attention_backward<T, E, form>(call, plan, static_cast<int>(blockIdx.x / heads),
                                 static_cast<int>(blockIdx.x % heads));
}

template <class Call, class Plan>
cudaError_t launch(void (*kernel)(Call, Plan), const Call& call, const Plan& plan, int64_t ctas, int warps,
                   cudaStream_t stream) {
  if (plan.bytes > kMostBytes || ctas > 0x7FFFFFFF) return cudaErrorInvalidValue;
  if (plan.bytes > 48 << 10) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(plan.bytes));
    if (error != cudaSuccess) return error;
  }
  kernel<<<static_cast<unsigned>(ctas), warps * 32, plan.bytes, stream>>>(call, plan);
  return cudaGetLastError();
}

template <class T, int E>
cudaError_t launch_forward(const Forward<T, float>& call, cudaStream_t stream) {
  return visit_form(choose_form(call.shape, call.structure), [&](auto chosen) {
    constexpr Form form = decltype(chosen)::value;
    const int warps = forward_warps(call.shape, call.structure);
    const ForwardPlan plan = ForwardPlan::of<E, form>(key_limit(call.shape, call.structure), warps);
    return launch(forward_kernel<T, E, form>, call, plan, call.shape.sequences * call.shape.heads, warps,
                  stream);
  });
}

template <class T, int E>
cudaError_t launch_backward(const Backward<T, float>& call, float* workspace, cudaStream_t stream) {
  return visit_form(choose_form(call.shape, call.structure), [&](auto chosen) {
    constexpr Form form = decltype(chosen)::value;
    const BackwardPlan plan = plan_backward<T, E, form>(call, workspace);
    return launch(backward_kernel<T, E, form>, call, plan, plan.groups * call.shape.heads,
                  backward_warps<E, form>(call.shape, call.structure), stream);
  });
}

#define FASTAMR_INSTANTIATE_FORWARD(E)                                                             \
  template cudaError_t launch_forward<Bfloat16, E>(const Forward<Bfloat16, float>&, cudaStream_t); \
  template cudaError_t launch_forward<Half, E>(const Forward<Half, float>&, cudaStream_t);

#define FASTAMR_INSTANTIATE_BACKWARD(E)                                                                      \
  template cudaError_t launch_backward<Bfloat16, E>(const Backward<Bfloat16, float>&, float*, cudaStream_t); \
  template cudaError_t launch_backward<Half, E>(const Backward<Half, float>&, float*, cudaStream_t);

}  // namespace fastamr::gpu
