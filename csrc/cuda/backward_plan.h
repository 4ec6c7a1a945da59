// Shared memory of a backward CTA and its share of sums over sequences.
#pragma once

#include "bias.h"

namespace fastamr::gpu {

// Key tiles that a warp owns, and warps of a CTA at most. With two tiles each, half as many warps may take
// twice the registers, which large heads and the tables of the full form need.
template <int E, Form form>
constexpr int kOwnedTiles = form == Form::full || (form == Form::medium && E == 64) ? 2 : 1;
template <int E, Form form>
constexpr int kBackwardWarps = has_one_chunk<form> ? kChunkTiles : kMaxKeys / kTile / kOwnedTiles<E, form>;

// What 16 queries bring into shared memory, side by side so that one address serves all: their rows of q and
// of dout, the log-sum-exp in units of log2, and delta.
template <int E>
struct QueryTile {
  static constexpr uint32_t out_gradients = kTile * Panel<E>::row_bytes;
  static constexpr uint32_t lse = 2 * out_gradients;
  static constexpr uint32_t delta = lse + kTile * 4;
  static constexpr uint32_t bytes = delta + kTile * 4;
  static constexpr uint32_t gap = bytes - out_gradients;  // from the end of a tile's rows to the next tile's
};

// Offsets in shared memory; K lies at 0. Queries pass in blocks, so that the score gradients of all keys fit.
struct BackwardPlan {
  int key_rows;
  int block_rows;  // queries of a block
  int stride;      // bytes from key to key of the score gradients
  uint32_t values, queries, score_gradients, repeats, columns;
  uint32_t key_places, query_places, mask, chains;
  uint32_t bytes;

  // CTAs of a head: each takes every groups-th sequence and sums over them what crosses sequences.
  int groups;
  float* column_partials;  // (groups, 3, H, E) or null
  float* joint_partials;   // (groups, H, V, V) or null
  float* time_partials;    // (groups, H, R) or null

  template <int E, Form form>
  static BackwardPlan layout(const Structure<float>& structure, int keys, int block_rows, int warps,
                             bool columns) {
    BackwardPlan plan = {};
    const auto take = [&plan](int bytes) {
      const uint32_t offset = plan.bytes;
      plan.bytes += round_up(bytes, 16);
      return offset;
    };
    plan.key_rows = form == Form::exact ? kChunkKeys : round_up(keys, kTile);
    plan.block_rows = block_rows;
    // An odd number of 16-byte steps, so that neighbouring keys fall into different banks.
    plan.stride = block_rows * 2 + 16;
    take(plan.key_rows * Panel<E>::row_bytes);
    plan.values = take(plan.key_rows * Panel<E>::row_bytes);
    plan.queries = take(block_rows / kTile * QueryTile<E>::bytes);
    plan.score_gradients = take(plan.key_rows * plan.stride);
    if (columns) plan.columns = take(warps * 3 * E * 4);
    if (structure.keep) plan.repeats = take(plan.key_rows * 4);
    if (form == Form::full) {
      plan.key_places = take(plan.key_rows * 4);
      plan.query_places = take(block_rows * 4);
      plan.mask = take(block_rows * plan.key_rows / 4);
      const int patches = (structure.offsets + 1) / 2, joints = structure.joints;
      plan.chains = take(2 * (Chains::bytes(plan.key_rows, joints) + Chains::bytes(plan.key_rows, patches)) +
                         2 * (Chains::bytes(block_rows, joints) + Chains::bytes(block_rows, patches)));
    }
    return plan;
  }
};

// Sums over rows of dq, dk and dv tiles. A warp has its own (3, E) floats, written by the lanes of its first
// row only.
template <int E>
struct ColumnSums {
  uint32_t base;  // of all warps
  Lane lane;

  FASTAMR_DEVICE uint32_t own(int which) const { return base + (lane.warp * 3 + which) * E * 4; }

  FASTAMR_DEVICE void clear() const {
    for (int i = lane.lane; i < 3 * E; i += 32) store_shared<float>(own(0) + i * 4, 0.0f);
    warp_barrier();
  }

  FASTAMR_DEVICE void add(const float (&tile)[E / 8][4], float factor, int which) const {
#pragma unroll
    for (int d = 0; d < E / 8; ++d) {
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        float sum = (tile[d][side] + tile[d][side + 2]) * factor;
        for (int mask = 4; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask);
        const uint32_t cell = own(which) + (d * 8 + lane.place * 2 + side) * 4;
        if (lane.row == 0) store_shared<float>(cell, load_shared<float>(cell) + sum);
      }
    }
  }

  // Adds the warps' sums to this CTA's share (3, H, E); call after a barrier.
  FASTAMR_DEVICE void finish(float* partial, int heads, int head, bool fresh, float extra) const {
    for (int i = thread_index(); i < 3 * E; i += thread_count()) {
      float sum = extra;
      for (int warp = 0; warp < lane.warps; ++warp) sum += load_shared<float>(base + (warp * 3 * E + i) * 4);
      put(partial + (i / E * heads + head) * E + i % E, sum, fresh);
    }
  }
};

}  // namespace fastamr::gpu
