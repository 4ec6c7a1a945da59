// Blocks of 32 x 32 sums: two by two tiles, the most that eight tile registers keep fed.
#pragma once

#include "tile_packing.h"

#if defined(FASTAMR_TILES)

namespace fastamr {
namespace {

constexpr int64_t kBlock = 2 * kTileRows;

constexpr int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Both factors lie packed: for each step of the contraction all parts, for each part two tiles of 1 KiB.
template <int Parts>
constexpr int64_t kPackedDepth = Parts * 2 * kTileNumbers;

// Tiles of a block's rows: two, or one where the block has no more than 16 rows.
template <int Halves>
FASTAMR_INLINE void load_left(const uint16_t* step, int64_t part) {
  tile_load<4>(step + part * 2 * kTileNumbers, 2 * kTileDepth);
  if constexpr (Halves == 2) tile_load<5>(step + part * 2 * kTileNumbers + kTileNumbers, 2 * kTileDepth);
}

FASTAMR_INLINE void load_right(const uint16_t* step, int64_t part) {
  tile_load<6>(step + part * 2 * kTileNumbers, 2 * kTileDepth);
  tile_load<7>(step + part * 2 * kTileNumbers + kTileNumbers, 2 * kTileDepth);
}

template <int Halves>
FASTAMR_INLINE void multiply_all() {
  tile_multiply<0, 4, 6>();
  tile_multiply<1, 4, 7>();
  if constexpr (Halves == 2) {
    tile_multiply<2, 5, 6>();
    tile_multiply<3, 5, 7>();
  }
}

// One step of the contraction. Of the products of parts those are left out that lie below the last part kept; the order
// changes one factor at a time.
template <int Parts, int Halves>
FASTAMR_INLINE void multiply_step(const uint16_t* left, const uint16_t* right) {
  static_assert(Parts >= 1 && Parts <= 3);
  if constexpr (Parts == 1) {
    load_left<Halves>(left, 0);
    load_right(right, 0);
    multiply_all<Halves>();
  } else if constexpr (Parts == 2) {
    load_right(right, 0);
    load_left<Halves>(left, 1);
    multiply_all<Halves>();
    load_left<Halves>(left, 0);
    multiply_all<Halves>();
    load_right(right, 1);
    multiply_all<Halves>();
  } else {
    load_right(right, 0);
    load_left<Halves>(left, 2);
    multiply_all<Halves>();
    load_left<Halves>(left, 1);
    multiply_all<Halves>();
    load_right(right, 1);
    multiply_all<Halves>();
    load_left<Halves>(left, 0);
    multiply_all<Halves>();
    load_right(right, 2);
    multiply_all<Halves>();
    load_right(right, 0);
    multiply_all<Halves>();
  }
}

// sums (32, 32), or its upper half where Halves is 1, rows `stride` numbers apart, = left x right over `steps` of the contraction.
// meanwhile(step) runs while the unit is busy: it works on its own and leaves vector instructions idle.
template <int Parts, int Halves, class Meanwhile>
FASTAMR_INLINE void multiply_block(const uint16_t* left, const uint16_t* right, int64_t steps, float* sums,
                                   int64_t stride, const Meanwhile& meanwhile) {
  const int64_t bytes = stride * 4;
  tile_zero<0>();
  tile_zero<1>();
  if constexpr (Halves == 2) {
    tile_zero<2>();
    tile_zero<3>();
  }
  for (int64_t step = 0; step < steps; ++step) {
    multiply_step<Parts, Halves>(left + step * kPackedDepth<Parts>, right + step * kPackedDepth<Parts>);
    meanwhile(step);
  }
  tile_store<0>(sums, bytes);
  tile_store<1>(sums + 16, bytes);
  if constexpr (Halves == 2) {
    tile_store<2>(sums + kTileRows * stride, bytes);
    tile_store<3>(sums + kTileRows * stride + 16, bytes);
  }
}

}  // namespace
}  // namespace fastamr

#endif
