// The matrix unit of x86 processors (AMX): eight registers called tiles, of 16 rows of 64 bytes, and one product of them.
//
// Included where AVX-512 is compiled for. FASTAMR_EMULATE_TILES puts plain C++ in the unit's place, so that the code
// around it can be tested, under sanitizers too, on a processor without it.
#pragma once

#include <cstdint>
#include <cstring>

#include "vectors.h"

#if defined(FASTAMR_EMULATE_TILES)
#define FASTAMR_TILES 1
#elif defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
// The instructions are written out below; the header only tells whether the toolchain knows them. Clang takes them in
// functions of their own kind only.
#if __has_include(<amxtileintrin.h>)
#define FASTAMR_TILES 1
#endif
#endif

#if defined(FASTAMR_TILES)

namespace fastamr {
namespace {

constexpr int kTileRows = 16;      // rows of a tile: of the left factor, or of pairs along the contraction
constexpr int kTileDepth = 32;     // bfloat16 numbers in a tile's row
constexpr int kTileNumbers = kTileRows * kTileDepth;

#if defined(FASTAMR_EMULATE_TILES)

struct EmulatedTile {
  uint8_t rows[kTileRows][64];
};
thread_local EmulatedTile emulated_tiles[8];

class TileScope {};

inline float emulated_number(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

template <int Tile>
FASTAMR_INLINE void tile_zero() {
  std::memset(&emulated_tiles[Tile], 0, sizeof(EmulatedTile));
}

template <int Tile>
FASTAMR_INLINE void tile_load(const void* from, int64_t stride) {
  for (int row = 0; row < kTileRows; ++row) {
    std::memcpy(emulated_tiles[Tile].rows[row], static_cast<const uint8_t*>(from) + row * stride, 64);
  }
}

template <int Tile>
FASTAMR_INLINE void tile_store(void* to, int64_t stride) {
  for (int row = 0; row < kTileRows; ++row) {
    std::memcpy(static_cast<uint8_t*>(to) + row * stride, emulated_tiles[Tile].rows[row], 64);
  }
}

template <int Sum, int Left, int Right>
FASTAMR_INLINE void tile_multiply() {
  float sums[kTileRows][16];
  uint16_t left[kTileRows][kTileDepth], right[kTileRows][kTileDepth];
  std::memcpy(sums, &emulated_tiles[Sum], sizeof(sums));
  std::memcpy(left, &emulated_tiles[Left], sizeof(left));
  std::memcpy(right, &emulated_tiles[Right], sizeof(right));
  for (int m = 0; m < kTileRows; ++m) {
    for (int k = 0; k < kTileDepth; ++k) {
      for (int n = 0; n < 16; ++n) {
        sums[m][n] += emulated_number(left[m][k]) * emulated_number(right[k / 2][2 * n + k % 2]);
      }
    }
  }
  std::memcpy(&emulated_tiles[Sum], sums, sizeof(sums));
}

#else

// All eight tiles at full size while the object lives; what another library had set up comes back after it.
class TileScope {
 public:
  TileScope() {
    alignas(64) uint8_t wanted[64] = {1};  // palette 1
    for (int tile = 0; tile < 8; ++tile) {
      wanted[16 + 2 * tile] = 64;          // bytes of a row, as 16-bit numbers
      wanted[48 + tile] = kTileRows;
    }
    asm volatile("sttilecfg %0" : "=m"(before_));
    asm volatile("ldtilecfg %0" : : "m"(wanted));
  }
  ~TileScope() { asm volatile("ldtilecfg %0" : : "m"(before_)); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  alignas(64) uint8_t before_[64];
};

template <int Tile>
FASTAMR_INLINE void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
}

// A tile's rows lie `stride` bytes apart.
template <int Tile>
FASTAMR_INLINE void tile_load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(Tile) : "memory");
}

template <int Tile>
FASTAMR_INLINE void tile_store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(Tile) : "memory");
}

// sum[m][n] += left[m][k] * right[k / 2][2 n + k % 2] over k: bfloat16 factors, float sums. Denormal numbers count as 0.
template <int Sum, int Left, int Right>
FASTAMR_INLINE void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(Left), "i"(Right));
}

#endif

}  // namespace
}  // namespace fastamr

#endif
