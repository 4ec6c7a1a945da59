// The primitives on a GPU of compute capability 8.0 or later; see primitives.h.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "storage.h"

#define FASTAMR_DEVICE __device__ __forceinline__
#define FASTAMR_HOST_DEVICE __host__ __device__ inline

// Every panel of a kernel is a byte offset into this one array.
extern __shared__ __align__(128) unsigned char fastamr_shared[];

namespace fastamr::gpu {

FASTAMR_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
FASTAMR_DEVICE int thread_count() { return static_cast<int>(blockDim.x); }
// The same in all lanes of a warp: said to the compiler, which then needs no code for lanes that part.
FASTAMR_DEVICE int uniform(int value) { return __shfl_sync(0xFFFFFFFFu, value, 0); }
FASTAMR_DEVICE void barrier() { __syncthreads(); }
FASTAMR_DEVICE bool barrier_all(bool condition) { return __syncthreads_and(condition) != 0; }
FASTAMR_DEVICE void warp_barrier() { __syncwarp(); }

template <class V>
FASTAMR_DEVICE V shuffle_xor(V value, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
}

template <class V>
FASTAMR_DEVICE V load_shared(uint32_t offset) {
  return *reinterpret_cast<const V*>(fastamr_shared + offset);
}

template <>
FASTAMR_DEVICE Chunk load_shared<Chunk>(uint32_t offset) {
  const uint4 v = *reinterpret_cast<const uint4*>(fastamr_shared + offset);
  return {{v.x, v.y, v.z, v.w}};
}

template <>
FASTAMR_DEVICE Pair load_shared<Pair>(uint32_t offset) {
  const float2 v = *reinterpret_cast<const float2*>(fastamr_shared + offset);
  return {v.x, v.y};
}

template <class V>
FASTAMR_DEVICE void store_shared(uint32_t offset, V value) {
  *reinterpret_cast<V*>(fastamr_shared + offset) = value;
}

template <>
FASTAMR_DEVICE void store_shared<Chunk>(uint32_t offset, Chunk value) {
  *reinterpret_cast<uint4*>(fastamr_shared + offset) =
      make_uint4(value.word[0], value.word[1], value.word[2], value.word[3]);
}

// Reads memory that nothing writes while the kernel runs.
FASTAMR_DEVICE Chunk load_constant(const Chunk* source) {
  const uint4 v = __ldg(reinterpret_cast<const uint4*>(source));
  return {{v.x, v.y, v.z, v.w}};
}

FASTAMR_DEVICE uint64_t load_constant(const uint64_t* source) {
  return __ldg(reinterpret_cast<const unsigned long long*>(source));
}

FASTAMR_DEVICE Chunk load_global(const Chunk* source) {
  const uint4 v = *reinterpret_cast<const uint4*>(source);
  return {{v.x, v.y, v.z, v.w}};
}

FASTAMR_DEVICE void store_global(Chunk* target, Chunk value) {
  *reinterpret_cast<uint4*>(target) = make_uint4(value.word[0], value.word[1], value.word[2], value.word[3]);
}

FASTAMR_DEVICE uint32_t shared_address(uint32_t offset) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(fastamr_shared)) + offset;
}

// Copies 16 bytes to shared memory past the registers; writes zeros, and reads nothing, unless `exists`.
FASTAMR_DEVICE void copy_async(uint32_t target, const Chunk* source, bool exists) {
  const int bytes = exists ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(target)), "l"(source),
               "r"(bytes)
               : "memory");
}

// Waits for the calling thread's own copies; a barrier makes them visible to the others.
FASTAMR_DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Four 8x8 matrices of 16-bit numbers, transposed; lane l names row l % 8 of matrix l / 8.
FASTAMR_DEVICE void load_matrices_transposed(uint32_t (&out)[4], uint32_t offset) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(offset))
               : "memory");
}

// sum (16x8) += a (16x16) * b (16x8).
template <class T>
FASTAMR_DEVICE void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
FASTAMR_DEVICE void multiply_add<Bfloat16>(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                           uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
FASTAMR_DEVICE void multiply_add<Half>(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats as one word of 16-bit numbers, the first in the low half.
template <class T>
FASTAMR_DEVICE uint32_t pack(float first, float second);

template <>
FASTAMR_DEVICE uint32_t pack<Bfloat16>(float first, float second) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
}

template <>
FASTAMR_DEVICE uint32_t pack<Half>(float first, float second) {
  uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
}

template <class T>
FASTAMR_DEVICE Pair unpack(uint32_t word);

template <>
FASTAMR_DEVICE Pair unpack<Bfloat16>(uint32_t word) {
  return {__uint_as_float(word << 16), __uint_as_float(word & 0xFFFF0000u)};
}

template <>
FASTAMR_DEVICE Pair unpack<Half>(uint32_t word) {
  const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&word));
  return {v.x, v.y};
}

FASTAMR_DEVICE uint32_t multiply_high(uint32_t a, uint32_t b) { return __umulhi(a, b); }

FASTAMR_DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

FASTAMR_DEVICE float log2_fast(float x) { return __log2f(x); }

}  // namespace fastamr::gpu
