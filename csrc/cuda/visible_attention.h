// Attention over at most 256 visible tokens on an NVIDIA GPU of compute capability 8.0 or later.
//
// T is gpu::Bfloat16 or gpu::Half, the head size 16, 32 or 64. Rows of all views start on 16 bytes: data is
// so aligned, and strides are multiples of 8 numbers. Nothing is allocated or waited for; the launches go to
// `stream` and may be captured. With keep, the caller clears the rows that gradients may leave unlisted: dk,
// dv, and dq in self-attention. Shapes have at least one sequence, head, query and key. A cu_seqlens sequence
// of more than 256 tokens gives NaN.
#pragma once

#include <cuda_runtime_api.h>

#include "../visible_attention.h"
#include "storage.h"

namespace fastamr::gpu {

template <class T>
cudaError_t visible_attention_forward(const Forward<T, float>& call, cudaStream_t stream);

// Floats of device memory that the backward needs for sums over sequences; may be 0.
template <class T>
int64_t visible_attention_workspace(const Backward<T, float>& call);

template <class T>
cudaError_t visible_attention_backward(const Backward<T, float>& call, float* workspace, cudaStream_t stream);

}  // namespace fastamr::gpu
