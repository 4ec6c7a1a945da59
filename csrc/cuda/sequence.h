// What one CTA works on: a sequence and a head, which rows exist, and where they lie.
#pragma once

#include "../visible_attention.h"
#include "tile.h"

namespace fastamr::gpu {

constexpr int kTile = 16;       // rows of queries or keys that a warp takes at once
constexpr int kChunkTiles = 5;  // key tiles whose scores a warp holds in registers at once
constexpr int kChunkKeys = kTile * kChunkTiles;
constexpr int kMaxKeys = 256;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;
constexpr uint32_t kNaNWord = 0x7FFF7FFF;  // two NaN of either storage type
constexpr float kInfinity = __builtin_huge_valf();
constexpr float kNaN = __builtin_nanf("");

// What an instantiation of the kernels can do. A plain call takes the narrowest one that serves it, and so
// pays for nothing else.
enum class Form {
  exact,   // keys in (64, 80], up to 128 queries, nothing optional
  small,   // up to 80 keys and 128 queries; keep, counts, cu_seqlens
  medium,  // up to 256 keys; keep, counts, cu_seqlens
  full,    // the same with bias, dropout and any scale
};

// Whether the scores of all keys fit a warp's registers, and all queries one block of the backward.
template <Form form>
constexpr bool has_one_chunk = form == Form::exact || form == Form::small;

// Largest number of keys that a sequence of this call can have.
FASTAMR_HOST_DEVICE int key_limit(const Shape& shape, const Structure<float>& structure) {
  const int64_t limit = structure.cu_seqlens ? kMaxKeys : shape.keys;
  return static_cast<int>(shape.keys < limit ? shape.keys : limit);
}

struct Sequence {
  int index, head;
  int first;            // first row of a cu_seqlens sequence, else 0
  int queries;          // rows of out
  int present_queries;  // those that exist; the rest is written as zeros
  int keys;             // keys that exist
  bool overlong;  // a cu_seqlens sequence of more than 256 tokens: its results are NaN. Never in small forms.

  template <Form form>
  FASTAMR_DEVICE static Sequence at(const Shape& shape, const Structure<float>& structure, int index,
                                    int head) {
    const int queries = static_cast<int>(shape.queries), keys = static_cast<int>(shape.keys);
    Sequence out = {index, head, 0, queries, queries, keys, false};
    if constexpr (form == Form::exact) return out;
    if (structure.cu_seqlens) {
      out.first = structure.cu_seqlens[index];
      out.queries = out.keys = uniform(structure.cu_seqlens[index + 1] - structure.cu_seqlens[index]);
      out.present_queries = out.keys;
      out.overlong = !has_one_chunk<form> && out.keys > kMaxKeys;
      if (out.overlong) out.keys = out.present_queries = 0;
    } else if (structure.counts) {
      const int count = uniform(structure.counts[index]);
      out.keys = count < 0 ? 0 : count < keys ? count : keys;
      if (structure.self_attention) out.present_queries = out.keys;
    }
    return out;
  }

  template <class T>
  FASTAMR_DEVICE HeadRows<const Chunk> rows(const Rows<const T>& view) const {
    const T* base = view.data + index * view.sequence + first * view.row + head * view.head;
    return {reinterpret_cast<const Chunk*>(base), static_cast<uint32_t>(view.row >> 3)};
  }

  template <class T>
  FASTAMR_DEVICE HeadRows<Chunk> rows(const Rows<T>& view) const {
    T* base = view.data + index * view.sequence + first * view.row + head * view.head;
    return {reinterpret_cast<Chunk*>(base), static_cast<uint32_t>(view.row >> 3)};
  }
};

// The log-sum-exp of a sequence and head: (S, H, Nq), with cu_seqlens (total, H).
template <class F>
struct LseRows {
  F* base;
  int stride;

  template <Form form>
  FASTAMR_DEVICE static LseRows at(F* lse, const Shape& shape, const Structure<float>& structure,
                                   const Sequence& sequence) {
    if (form != Form::exact && structure.cu_seqlens) {
      return {lse + sequence.first * shape.heads + sequence.head, static_cast<int>(shape.heads)};
    }
    return {lse + (sequence.index * shape.heads + sequence.head) * shape.queries, 1};
  }

  FASTAMR_DEVICE F& operator[](int row) const { return base[row * stride]; }
};

// Which row of k and v (and in self-attention of q) a token lies in.
struct TokenRows {
  const int32_t* keep;  // of this sequence, or null

  template <Form form>
  FASTAMR_DEVICE static TokenRows at(const Shape& shape, const Structure<float>& structure, int sequence) {
    if (form == Form::exact || !structure.keep) return {nullptr};
    return {structure.keep + sequence * shape.keys};
  }

  template <Form form>
  FASTAMR_DEVICE int row_of(int token) const {
    if constexpr (form == Form::exact) return token;
    return keep ? keep[token] : token;
  }
};

// Writes one word all over the first `count` rows.
template <int E>
FASTAMR_DEVICE void fill_rows(const HeadRows<Chunk>& target, int count, uint32_t word) {
  for (int i = thread_index(); i < count * Panel<E>::chunks; i += thread_count()) {
    store_global(target.row(i / Panel<E>::chunks) + i % Panel<E>::chunks, {{word, word, word, word}});
  }
}

// Starts copying rows of global memory into a panel; rows from `present` on become zeros. `gap` bytes lie
// between the panel's tiles of 16 rows.
template <int E, Form form>
FASTAMR_DEVICE void copy_rows(uint32_t panel, const HeadRows<const Chunk>& source,
                              const TokenRows& token_rows, int first, int present, int rows,
                              uint32_t gap = 0) {
  for (ChunkWalk<E> walk = ChunkWalk<E>::start(); walk.row < rows; walk.next()) {
    const int token = first + walk.row;
    const bool exists = token < present;
    const int from = exists ? token_rows.template row_of<form>(token) : 0;
    copy_async(panel + walk.offset + walk.row / kTile * gap, source.at(from, walk.chunk), exists);
  }
}

}  // namespace fastamr::gpu
