// Host side, shared by the GPU's launcher and the emulator: which instantiation serves a call, and its CTAs.
#pragma once

#include <algorithm>
#include <type_traits>

#include "backward.h"
#include "forward.h"
#include "reduce.h"

namespace fastamr::gpu {

constexpr int kForwardWarps = 8;
constexpr int kSmallQueries = kTile * kForwardWarps;
// A block of queries that leaves room for four CTAs on an H100's multiprocessor, and what one CTA may take on
// every architecture from 8.0 on.
constexpr uint32_t kRoomyBytes = 56 << 10, kMostBytes = 98 << 10;
// The bias tables' gradients are summed over sequences by about this many CTAs.
constexpr int64_t kBiasCtas = 1024;

inline int64_t query_limit(const Shape& shape, const Structure<float>& structure) {
  return structure.cu_seqlens ? key_limit(shape, structure) : shape.queries;
}

inline Form choose_form(const Shape& shape, const Structure<float>& structure) {
  // A scale that is not positive cannot wait until after the maximum has been taken.
  if (structure.joint_bias || structure.seed || !(structure.scale > 0)) return Form::full;
  const int keys = key_limit(shape, structure);
  if (keys > kChunkKeys || query_limit(shape, structure) > kSmallQueries) return Form::medium;
  const bool plain = !structure.keep && !structure.counts && !structure.cu_seqlens;
  return plain && keys > kChunkKeys - kTile ? Form::exact : Form::small;
}

template <class Visitor>
auto visit_form(Form form, Visitor&& visitor) {
  switch (form) {
    case Form::exact:
      return visitor(std::integral_constant<Form, Form::exact>{});
    case Form::small:
      return visitor(std::integral_constant<Form, Form::small>{});
    case Form::medium:
      return visitor(std::integral_constant<Form, Form::medium>{});
    default:
      return visitor(std::integral_constant<Form, Form::full>{});
  }
}

constexpr int tiles_of(int64_t rows) { return static_cast<int>((rows + kTile - 1) / kTile); }

// Warps of a forward CTA: one for each tile of queries, or as few as take the same number of rounds.
inline int forward_warps(const Shape& shape, const Structure<float>& structure) {
  const int tiles = std::max(1, tiles_of(query_limit(shape, structure)));
  const int rounds = (tiles + kForwardWarps - 1) / kForwardWarps;
  return (tiles + rounds - 1) / rounds;
}

// Warps of a backward CTA: one for each tile of keys, or for two where a tile's accumulators need many
// registers.
template <int E, Form form>
int backward_warps(const Shape& shape, const Structure<float>& structure) {
  return std::min(std::max(1, tiles_of(key_limit(shape, structure))), kBackwardWarps<E, form>);
}

inline int64_t backward_groups(const Shape& shape, const Structure<float>& structure) {
  if (choose_form(shape, structure) != Form::full) return shape.sequences;
  return std::min(shape.sequences, std::max<int64_t>(1, kBiasCtas / shape.heads));
}

// Floats of the partial sums that a backward call needs in its workspace: columns, joint table, time table.
struct PartialSums {
  int64_t columns, joint, time;

  int64_t total() const { return columns + joint + time; }

  template <class T>
  static PartialSums of(const Backward<T, float>& call) {
    const int64_t rows = backward_groups(call.shape, call.structure) * call.shape.heads;
    const int64_t joints = call.structure.joints;
    return {call.columns ? rows * 3 * call.shape.size : 0, call.joint_gradient ? rows * joints * joints : 0,
            call.time_gradient ? rows * call.structure.offsets : 0};
  }
};

template <class T, int E, Form form>
BackwardPlan plan_backward(const Backward<T, float>& call, float* workspace) {
  const int keys = key_limit(call.shape, call.structure);
  const int warps = backward_warps<E, form>(call.shape, call.structure);
  const int queries =
      round_up(std::max<int>(1, static_cast<int>(query_limit(call.shape, call.structure))), kTile);
  const auto layout = [&](int rows) {
    return BackwardPlan::layout<E, form>(call.structure, keys, rows, warps, call.columns != nullptr);
  };
  int rows = std::min(queries, kMaxKeys);
  if (layout(rows).bytes > kRoomyBytes) {
    while (rows > kTile && layout(rows).bytes > kMostBytes) rows -= kTile;
  }
  BackwardPlan plan = layout(rows);
  const PartialSums sums = PartialSums::of(call);
  plan.groups = static_cast<int>(backward_groups(call.shape, call.structure));
  plan.column_partials = call.columns ? workspace : nullptr;
  plan.joint_partials = call.joint_gradient ? workspace + sums.columns : nullptr;
  plan.time_partials = call.time_gradient ? workspace + sums.columns + sums.joint : nullptr;
  return plan;
}

}  // namespace fastamr::gpu
