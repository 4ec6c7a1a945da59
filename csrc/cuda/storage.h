// The 16-bit storage types, as plain bits: arithmetic is done in float, conversions are primitives.
#pragma once

#include <cstdint>

namespace fastamr::gpu {

struct Bfloat16 {
  uint16_t bits;
};

struct Half {
  uint16_t bits;
};

// Eight 16-bit numbers: what one thread moves at once.
struct alignas(16) Chunk {
  uint32_t word[4];
};

// Two floats: what one 32-bit word of a fragment unpacks to.
struct Pair {
  float first;
  float second;
};

}  // namespace fastamr::gpu
