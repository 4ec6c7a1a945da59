// Philox-4x32-10 and the dropout mask; fastamr/reference/philox.py defines the layout of the counter.
#pragma once

#include "sequence.h"

namespace fastamr::gpu {

constexpr uint32_t kStreamDropout = 4;

struct Philox {
  uint32_t key[2];
  uint32_t counter[2];  // the upper two words of the counter

  FASTAMR_DEVICE static Philox from_seed(const int64_t* seed, uint32_t stream) {
    const uint64_t key = static_cast<uint64_t>(seed[0]), counter = static_cast<uint64_t>(seed[1]);
    return {{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)},
            {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32) ^ (stream << 24)}};
  }

  // The words of columns 4*block to 4*block + 3 of a row.
  FASTAMR_DEVICE void words(uint32_t row, uint32_t block, uint32_t (&out)[4]) const {
    uint32_t c[4] = {block, row, counter[0], counter[1]}, k0 = key[0], k1 = key[1];
#pragma unroll
    for (int round = 0; round < 10; ++round) {
      const uint32_t high0 = multiply_high(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0];
      const uint32_t high1 = multiply_high(0xCD9E8D57u, c[2]), low1 = 0xCD9E8D57u * c[2];
      c[0] = high1 ^ c[1] ^ k0;
      c[1] = low1;
      c[2] = high0 ^ c[3] ^ k1;
      c[3] = low0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = c[i];
  }
};

// Number of the first query's row in the Philox grid. Its rows are Nq apart; with cu_seqlens Nq is the
// longest length.
FASTAMR_DEVICE uint32_t first_philox_row(const Shape& shape, const Structure<float>& structure,
                                         const Sequence& sequence) {
  uint32_t queries = static_cast<uint32_t>(shape.queries);
  if (structure.cu_seqlens) {
    int longest = 0;
    for (int64_t s = thread_index() & 31; s < shape.sequences; s += 32) {
      const int length = structure.cu_seqlens[s + 1] - structure.cu_seqlens[s];
      longest = length > longest ? length : longest;
    }
    for (int mask = 1; mask < 32; mask *= 2) {
      const int other = shuffle_xor(longest, mask);
      longest = other > longest ? other : longest;
    }
    queries = static_cast<uint32_t>(longest);
  }
  return (static_cast<uint32_t>(sequence.index) * static_cast<uint32_t>(shape.heads) + sequence.head) *
         queries;
}

// Writes one byte for each query and group of four keys: bit b says whether the weight of key 4*group + b
// stays.
FASTAMR_DEVICE void fill_dropout_mask(uint32_t mask, const Philox& philox, uint32_t threshold,
                                      uint32_t first_row, int rows, int first_group, int groups, int worker,
                                      int workers) {
  for (int i = worker; i < rows * groups; i += workers) {
    const int row = i / groups, group = i % groups;
    uint32_t word[4];
    philox.words(first_row + row, first_group + group, word);
    uint32_t bits = 0;
#pragma unroll
    for (int b = 0; b < 4; ++b) bits |= (word[b] >= threshold ? 1u : 0u) << b;
    store_shared<uint8_t>(mask + i, static_cast<uint8_t>(bits));
  }
}

FASTAMR_DEVICE bool stays(uint32_t mask, int groups, int row, int key) {
  return load_shared<uint8_t>(mask + row * groups + (key >> 2)) >> (key & 3) & 1;
}

}  // namespace fastamr::gpu
