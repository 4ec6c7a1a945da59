// Additive bias from two tables, and the tables' gradients. Ids must lie in [0, V * (R + 1) / 2).
#pragma once

#include "sequence.h"

namespace fastamr::gpu {

// A token's joint in the low and its time patch in the high half of a word.
FASTAMR_DEVICE uint32_t place_of(int id, int joints) {
  return static_cast<uint32_t>(id % joints) | static_cast<uint32_t>(id / joints) << 16;
}

// Ids of a sequence's tokens: given, or the rows they lie in.
struct TokenIds {
  const int32_t* ids;
  TokenRows rows;
  int joints;

  FASTAMR_DEVICE uint32_t place(int token) const {
    return place_of(ids ? ids[token] : rows.row_of<Form::full>(token), joints);
  }
};

FASTAMR_DEVICE TokenIds key_ids(const Shape& shape, const Structure<float>& structure,
                                const Sequence& sequence) {
  const int32_t* ids = structure.key_ids ? structure.key_ids + sequence.index * shape.keys : nullptr;
  return {ids, TokenRows::at<Form::full>(shape, structure, sequence.index), structure.joints};
}

FASTAMR_DEVICE TokenIds query_ids(const Shape& shape, const Structure<float>& structure,
                                  const Sequence& sequence) {
  const int32_t* ids = structure.query_ids ? structure.query_ids + sequence.index * shape.queries : nullptr;
  TokenRows rows = {nullptr};
  if (structure.self_attention) rows = TokenRows::at<Form::full>(shape, structure, sequence.index);
  return {ids, rows, structure.joints};
}

// Writes the places of `rows` tokens from `first` on to shared memory; absent ones get place 0.
FASTAMR_DEVICE void fill_places(uint32_t places, const TokenIds& tokens, int first, int present, int rows) {
  for (int i = thread_index(); i < rows; i += thread_count()) {
    store_shared<uint32_t>(places + i * 4, first + i < present ? tokens.place(first + i) : 0u);
  }
}

// Both tables of one head; values come out in units of log2.
struct BiasTables {
  const float* joint;
  const float* time;
  int joints, centre;

  FASTAMR_DEVICE static BiasTables at(const Structure<float>& structure, int head) {
    return {structure.joint_bias + static_cast<int64_t>(head) * structure.joints * structure.joints,
            structure.time_bias + static_cast<int64_t>(head) * structure.offsets, structure.joints,
            structure.offsets / 2};
  }

  FASTAMR_DEVICE float operator()(uint32_t query, uint32_t key) const {
    const int pair = static_cast<int>(query & 0xFFFF) * joints + static_cast<int>(key & 0xFFFF);
    const int offset = static_cast<int>(query >> 16) - static_cast<int>(key >> 16) + centre;
    return (joint[pair] + time[offset]) * kLog2E;
  }
};

// Tokens of equal joint (shift 0) or time patch (shift 16), chained in ascending order; -1 ends a chain.
struct Chains {
  uint32_t head, next;  // shared memory: int16 by joint or patch, int16 by token
  int buckets;

  FASTAMR_DEVICE void build(uint32_t places, int tokens, int shift) const {
    for (int i = thread_index(); i < tokens + buckets; i += thread_count()) {
      const bool is_token = i < tokens;
      const int value = is_token ? value_of(places, i, shift) : i - tokens;
      int found = is_token ? i + 1 : 0;
      while (found < tokens && value_of(places, found, shift) != value) ++found;
      const int16_t link = static_cast<int16_t>(found < tokens ? found : -1);
      store_shared<int16_t>(is_token ? next + i * 2 : head + value * 2, link);
    }
  }

  FASTAMR_DEVICE int first(int bucket) const { return load_shared<int16_t>(head + bucket * 2); }
  FASTAMR_DEVICE int after(int token) const { return load_shared<int16_t>(next + token * 2); }

  FASTAMR_DEVICE static int value_of(uint32_t places, int token, int shift) {
    return static_cast<int>(load_shared<uint32_t>(places + token * 4) >> shift & 0xFFFF);
  }

  FASTAMR_HOST_DEVICE static int bytes(int tokens, int buckets) {
    return round_up(2 * (tokens + buckets), 16);
  }
};

// Gradients of the scores in shared memory, [key][query], 16-bit.
template <class T>
struct ScoreGradients {
  uint32_t base;
  int stride;

  FASTAMR_DEVICE float at(int query, int key) const {
    return unpack<T>(load_shared<uint16_t>(base + key * stride + query * 2)).first;
  }

  // Sum over all pairs of a chain of queries and a chain of keys.
  FASTAMR_DEVICE float sum(const Chains& queries, int query_bucket, const Chains& keys,
                           int key_bucket) const {
    float out = 0;
    for (int q = queries.first(query_bucket); q >= 0; q = queries.after(q)) {
      for (int k = keys.first(key_bucket); k >= 0; k = keys.after(k)) out += at(q, k);
    }
    return out;
  }
};

FASTAMR_DEVICE void put(float* target, float value, bool fresh) { *target = fresh ? value : *target + value; }

// Adds a block of score gradients to this CTA's share of the joint table's gradient. A cell belongs to one
// thread, so the order of the sum is fixed.
template <class T>
FASTAMR_DEVICE void add_joint_gradient(float* partial, const ScoreGradients<T>& gradients,
                                       const Chains& queries, const Chains& keys, int joints, bool fresh) {
  for (int cell = thread_index(); cell < joints * joints; cell += thread_count()) {
    put(partial + cell, gradients.sum(queries, cell / joints, keys, cell % joints), fresh);
  }
}

template <class T>
FASTAMR_DEVICE void add_time_gradient(float* partial, const ScoreGradients<T>& gradients,
                                      const Chains& queries, const Chains& keys, int offsets, bool fresh) {
  for (int cell = thread_index(); cell < offsets; cell += thread_count()) {
    float sum = 0;
    for (int patch = 0; patch < queries.buckets; ++patch) {
      const int other = patch - (cell - offsets / 2);
      if (other >= 0 && other < keys.buckets) sum += gradients.sum(queries, patch, keys, other);
    }
    put(partial + cell, sum, fresh);
  }
}

}  // namespace fastamr::gpu
