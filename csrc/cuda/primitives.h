// What the tile code needs from a GPU: thread indices, shared memory, barriers, shuffles, asynchronous
// copies, `ldmatrix` and `mma`. Two implementations of one set of functions: primitives_gpu.h for nvcc, and
// tests/csrc/gpu_emulator.h for a host compiler, where the same indexing code is tested without a GPU.
#pragma once

#ifdef __CUDACC__
#include "primitives_gpu.h"
#else
#include "gpu_emulator.h"
#endif
