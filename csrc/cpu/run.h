// A whole call on the CPU: tasks in parallel, then the sums over sequences.
//
// `parallel(tasks, work)` calls work(begin, end) for ranges that cover 0 .. tasks, in any order and from any thread.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "kernels.h"

namespace fastamr {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

inline std::unique_ptr<void, Free> make_scratch(size_t bytes) {
  constexpr size_t alignment = 64;
  void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return std::unique_ptr<void, Free>(memory);
}

template <class T, class C, class Parallel>
void run(const Kernels& kernels, const Forward<T, C>& call, const Parallel& parallel) {
  const auto& functions = functions_of<T>(kernels);
  parallel(tasks_of(call.shape), [&](int64_t begin, int64_t end) {
    const auto scratch = make_scratch(functions.scratch_bytes);
    functions.forward(call, begin, end, scratch.get());
  });
}

// Sum the tasks' partials of each head, group after group: `offset` and `count` name the part of a partial, and head
// h's sums go to target + h * stride.
template <class C>
void sum_groups(const std::vector<C>& partials, const Shape& shape, int64_t size, int64_t offset, int64_t count,
                C* target, int64_t stride) {
  for (int64_t h = 0; h < shape.heads; ++h) {
    C* sums = target + h * stride;
    for (int64_t i = 0; i < count; ++i) sums[i] = 0;
    for (int64_t group = 0; group < groups_of(shape); ++group) {
      const C* mine = partials.data() + (group * shape.heads + h) * size + offset;
      for (int64_t i = 0; i < count; ++i) sums[i] += mine[i];
    }
  }
}

template <class T, class C, class Parallel>
void run(const Kernels& kernels, const Backward<T, C>& call, const Parallel& parallel) {
  const auto& functions = functions_of<T>(kernels);
  const auto& shape = call.shape;
  const bool sums = call.columns != nullptr || call.joint_gradient != nullptr;
  const int64_t size = partial_size(shape, call.structure);
  std::vector<C> partials(sums ? tasks_of(shape) * size : 0);
  parallel(tasks_of(shape), [&](int64_t begin, int64_t end) {
    const auto scratch = make_scratch(functions.scratch_bytes);
    functions.backward(call, begin, end, scratch.get(), sums ? partials.data() : nullptr);
  });
  for (int part = 0; part < 3 && call.columns != nullptr; ++part) {
    C* target = call.columns + part * shape.heads * shape.size;
    sum_groups(partials, shape, size, part * shape.size, shape.size, target, shape.size);
  }
  if (call.joint_gradient != nullptr) {
    const int64_t pairs = int64_t{call.structure.joints} * call.structure.joints;
    sum_groups(partials, shape, size, 3 * shape.size, pairs, call.joint_gradient, pairs);
    sum_groups(partials, shape, size, 3 * shape.size + pairs, call.structure.offsets, call.time_gradient,
               call.structure.offsets);
  }
}

}  // namespace fastamr
