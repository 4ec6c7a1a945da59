// What the structure of a call means for one sequence and one head: lengths, bias and dropout.
#pragma once

#include "../visible_attention.h"
#include "products.h"

namespace fastamr {
namespace {

// Lengths and first row of a sequence.
struct Extent {
  int64_t first_row = 0;  // in the packed tensors of cu_seqlens
  int64_t queries = 0;    // that exist
  int keys = 0;           // that exist
};

template <class C>
FASTAMR_INLINE Extent extent_of(const Shape& shape, const Structure<C>& structure, int64_t s) {
  Extent extent;
  extent.queries = shape.queries;
  extent.keys = static_cast<int>(shape.keys);
  if (structure.cu_seqlens != nullptr) {
    extent.first_row = structure.cu_seqlens[s];
    extent.keys = structure.cu_seqlens[s + 1] - structure.cu_seqlens[s];
    extent.queries = extent.keys;
  } else if (structure.counts != nullptr) {
    const int count = structure.counts[s];
    extent.keys = count < 0 ? 0 : count < shape.keys ? count : static_cast<int>(shape.keys);
    if (structure.self_attention) extent.queries = extent.keys;
  }
  return extent;
}

// Rows of the dropout grid per head: Nq, or the longest sequence's length.
template <class C>
FASTAMR_INLINE int64_t dropout_rows(const Shape& shape, const Structure<C>& structure) {
  if (structure.cu_seqlens == nullptr) return shape.queries;
  int64_t longest = 0;
  for (int64_t s = 0; s < shape.sequences; ++s) {
    const int64_t length = structure.cu_seqlens[s + 1] - structure.cu_seqlens[s];
    longest = length > longest ? length : longest;
  }
  return longest;
}

// Place of a query's log-sum-exp.
template <class C>
FASTAMR_INLINE int64_t lse_index(const Shape& shape, const Structure<C>& structure, int64_t s, int64_t h,
                                 int64_t query) {
  if (structure.cu_seqlens != nullptr) return (structure.cu_seqlens[s] + query) * shape.heads + h;
  return (s * shape.heads + h) * shape.queries + query;
}

// The bias of one head: its tables, and the keys' ids split into joint and time patch.
template <class C>
struct Bias {
  const C* joint_table = nullptr;  // (V, V)
  const C* time_table = nullptr;   // (R,)
  int joints = 1;
  int centre = 0;                      // R / 2
  const int32_t* query_ids = nullptr;  // null: 0, 1, 2, ...
  int key_joint[kLargestKeys];
  int key_time[kLargestKeys];

  FASTAMR_INLINE bool present() const { return joint_table != nullptr; }

  FASTAMR_INLINE void read(const Shape& shape, const Structure<C>& structure, int64_t s, int64_t h, int keys) {
    joint_table = nullptr;
    if (structure.joint_bias == nullptr) return;
    joints = structure.joints;
    centre = structure.offsets / 2;
    joint_table = structure.joint_bias + h * joints * joints;
    time_table = structure.time_bias + h * structure.offsets;
    const int32_t* listed = structure.keep == nullptr ? nullptr : structure.keep + s * shape.keys;
    const int32_t* key_ids = structure.key_ids == nullptr ? listed : structure.key_ids + s * shape.keys;
    query_ids = structure.query_ids != nullptr ? structure.query_ids + s * shape.queries
                : structure.self_attention     ? listed
                                               : nullptr;
    for (int j = 0; j < keys; ++j) {
      const int id = key_ids == nullptr ? j : key_ids[j];
      key_joint[j] = id % joints;
      key_time[j] = id / joints;
    }
  }

  // Where the row of a query starts: joint_row[key_joint[j]] and time_row[-key_time[j]].
  FASTAMR_INLINE int64_t joint_row(int64_t query) const { return id_of(query) % joints * joints; }
  FASTAMR_INLINE int64_t time_row(int64_t query) const { return id_of(query) / joints + centre; }

  FASTAMR_INLINE void add_to(C* scores, int64_t query, int keys) const {
    const C* joint = joint_table + joint_row(query);
    const C* time = time_table + time_row(query);
    for (int j = 0; j < keys; ++j) scores[j] += joint[key_joint[j]] + time[-key_time[j]];
  }

  // Add a row of the scores' gradient to the tables' gradients.
  FASTAMR_INLINE void add_gradient(const C* dscores, int64_t query, int keys, C* joint_gradient,
                                   C* time_gradient) const {
    C* joint = joint_gradient + joint_row(query);
    C* time = time_gradient + time_row(query);
    for (int j = 0; j < keys; ++j) {
      joint[key_joint[j]] += dscores[j];
      time[-key_time[j]] += dscores[j];
    }
  }

 private:
  FASTAMR_INLINE int64_t id_of(int64_t query) const { return query_ids == nullptr ? query : query_ids[query]; }
};

// Philox-4x32-10 of the package (fastamr/reference/philox.py): four words of the block at (block, row).
FASTAMR_INLINE void philox(const int64_t* seed, uint32_t block, uint32_t row, uint32_t (&words)[4]) {
  constexpr uint32_t stream = 4;
  const uint64_t key = static_cast<uint64_t>(seed[0]), counter = static_cast<uint64_t>(seed[1]);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = block, c1 = row, c2 = static_cast<uint32_t>(counter);
  uint32_t c3 = static_cast<uint32_t>(counter >> 32) ^ (stream << 24);
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t{0xD2511F53u} * c0, second = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(second >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(first >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(second);
    c3 = static_cast<uint32_t>(first);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// factors[j] = 0 for a dropped weight, else 1 / (1 - dropout).
template <class C>
FASTAMR_INLINE void dropout_factors(const Structure<C>& structure, int64_t row, int keys, C* factors) {
  for (int first = 0; first < keys; first += 4) {
    uint32_t words[4];
    philox(structure.seed, static_cast<uint32_t>(first / 4), static_cast<uint32_t>(row), words);
    for (int j = 0; j < 4; ++j) factors[first + j] = words[j] < structure.threshold ? C{0} : structure.inverse_kept;
  }
}

}  // namespace
}  // namespace fastamr
