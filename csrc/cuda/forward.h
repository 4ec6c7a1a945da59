// Attention forward for one sequence and head: keys and values lie in shared memory, a warp takes 16 queries
// at a time and keeps their scores, weights and outputs in registers. Beyond 80 keys the softmax runs over
// chunks of 80.
#pragma once

#include "bias.h"
#include "dropout.h"

namespace fastamr::gpu {

constexpr int kMaskGroups = kChunkKeys / 4;  // bytes of dropout mask for each query of a chunk

// Shared memory of a CTA; K lies at offset 0.
struct ForwardPlan {
  int key_rows;
  uint32_t values, places, masks, bytes;

  template <int E, Form form>
  static ForwardPlan of(int keys, int warps) {
    ForwardPlan plan = {};
    plan.key_rows = form == Form::exact ? kChunkKeys : round_up(keys, kTile);
    plan.values = plan.key_rows * Panel<E>::row_bytes;
    plan.places = plan.bytes = 2 * plan.values;
    if (form == Form::full) {
      plan.masks = plan.places + plan.key_rows * 4;
      plan.bytes = plan.masks + warps * kTile * kMaskGroups;
    }
    return plan;
  }
};

template <class T, int E, Form form>
class ForwardTile {
 public:
  FASTAMR_DEVICE ForwardTile(const Forward<T, float>& call, const ForwardPlan& plan, const Sequence& sequence,
                             Lane lane)
      : call_(call),
        plan_(plan),
        sequence_(sequence),
        lane_(lane),
        words_offset_(Panel<E>::words_offset(lane)),
        matrices_offset_(Panel<E>::matrices_offset(lane)),
        factor_(form == Form::full ? 1.0f : call.structure.scale * kLog2E) {}

  // Attends queries `first` to `first + 15`, whose words the lane holds.
  FASTAMR_DEVICE void run(const TileWords<E>& query, int first) {
#pragma unroll
    for (int d = 0; d < E / 8; ++d) out_[d][0] = out_[d][1] = out_[d][2] = out_[d][3] = 0;
    top_[0] = top_[1] = -kInfinity;
    total_[0] = total_[1] = 0;
    if (form != Form::exact && first >= sequence_.present_queries) return;
    int key = 0;
    do {
      attend(query, first, key);
      key += kChunkKeys;
    } while (!has_one_chunk<form> && key < sequence_.keys);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total_[half] += shuffle_xor(total_[half], 1);
      total_[half] += shuffle_xor(total_[half], 2);
    }
  }

  FASTAMR_DEVICE void store(const HeadRows<Chunk>& out, const LseRows<float>& lse, int first) {
    float inverse[2];
    TileTarget target = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + lane_.row + half * 8;
      const bool present = form == Form::exact || row < sequence_.present_queries;
      const bool empty = form != Form::exact && (total_[half] == 0 || !present);
      target.store[half] = row < sequence_.queries;
      target.row[half] = out.row(target.store[half] ? row : 0);
      inverse[half] = empty ? 0.0f : 1.0f / total_[half];
      if (empty) {
#pragma unroll
        for (int d = 0; d < E / 8; ++d) out_[d][half * 2] = out_[d][half * 2 + 1] = 0;
      }
      if (lane_.place == 0 && target.store[half]) {
        lse[row] = empty ? -kInfinity : (base_[half] + log2_fast(total_[half])) * kLn2;
      }
    }
    store_tile<T, E, false>(out_, inverse, target, lane_);
  }

 private:
  // In the exact form all five tiles hold keys; else those past the last key are skipped by the whole warp.
  FASTAMR_DEVICE bool has_keys(int key) const { return form == Form::exact || key < sequence_.keys; }

  // One pass over up to 80 keys from `key` on.
  FASTAMR_DEVICE void attend(const TileWords<E>& query, int first, int key) {
    float score[2 * kChunkTiles][4];
#pragma unroll
    for (int i = 0; i < 2 * kChunkTiles; ++i) {
      score[i][0] = score[i][1] = score[i][2] = score[i][3] = 0;
      if (has_keys(key + i / 2 * kTile)) {
        const uint32_t rows = (key + i * 8) * Panel<E>::row_bytes;
        contract_rows<T, E>(score[i], query, shared_row_words<E>(rows, words_offset_));
      }
    }
    if constexpr (form == Form::full) add_bias(score, first, key);
    hide_absent_keys(score, key);
    raise_top(score);
    if constexpr (form == Form::full) fill_mask(first, key);
#pragma unroll
    for (int tile = 0; tile < kChunkTiles; ++tile) {
      if (!has_keys(key + tile * kTile)) continue;
      uint32_t weights[4];
      weigh(weights, score[tile * 2], score[tile * 2 + 1], tile * kTile);
      const uint32_t rows = plan_.values + (key + tile * kTile) * Panel<E>::row_bytes;
      multiply_rows<T, E>(out_, weights, rows, matrices_offset_);
    }
    if constexpr (form == Form::full) warp_barrier();  // before the next chunk's mask overwrites this one's
  }

  FASTAMR_DEVICE void hide_absent_keys(float (&score)[2 * kChunkTiles][4], int key) const {
    // The exact form has more than 64 keys: only its last tile can hold absent ones.
    constexpr int first = form == Form::exact ? 2 * (kChunkTiles - 1) : 0;
#pragma unroll
    for (int i = first; i < 2 * kChunkTiles; ++i) {
      const int column = key + i * 8 + 2 * lane_.place;
      if (column >= sequence_.keys) score[i][0] = score[i][2] = -kInfinity;
      if (column + 1 >= sequence_.keys) score[i][1] = score[i][3] = -kInfinity;
    }
  }

  // Largest score of each row so far; sums made with a smaller one are scaled down.
  FASTAMR_DEVICE void raise_top(const float (&score)[2 * kChunkTiles][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = top_[half];
#pragma unroll
      for (int i = 0; i < 2 * kChunkTiles; ++i) {
        top = fmaxf(top, fmaxf(score[i][half * 2], score[i][half * 2 + 1]));
      }
      top = fmaxf(top, shuffle_xor(top, 1));
      top = fmaxf(top, shuffle_xor(top, 2));
      // A row without any key, or with all of them at -inf, must not become -inf - -inf.
      const float base = form != Form::exact && top == -kInfinity ? 0.0f : top * factor_;
      if constexpr (!has_one_chunk<form>) {
        const float shrink = top_[half] == -kInfinity ? 0.0f : exp2_fast(base_[half] - base);
        total_[half] *= shrink;
#pragma unroll
        for (int d = 0; d < E / 8; ++d) {
          out_[d][half * 2] *= shrink;
          out_[d][half * 2 + 1] *= shrink;
        }
      }
      top_[half] = top;
      base_[half] = base;
    }
  }

  // Weights of 16 keys as the left operand of the product with the values.
  FASTAMR_DEVICE void weigh(uint32_t (&weights)[4], float (&low)[4], float (&high)[4], int column) {
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      float (&x)[4] = part ? high : low;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        x[i] = exp2_fast(fmaf(x[i], factor_, -base_[i >> 1]));
        total_[i >> 1] += x[i];
      }
      if constexpr (form == Form::full) drop(x, column + part * 8 + 2 * lane_.place);
      weights[part * 2] = pack<T>(x[0], x[1]);
      weights[part * 2 + 1] = pack<T>(x[2], x[3]);
    }
  }

  FASTAMR_DEVICE void add_bias(float (&score)[2 * kChunkTiles][4], int first, int key) const {
    const Structure<float>& structure = call_.structure;
    const float scale = structure.scale * kLog2E;
    if (!structure.joint_bias) {
#pragma unroll
      for (int i = 0; i < 2 * kChunkTiles; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) score[i][e] *= scale;
      }
      return;
    }
    const BiasTables tables = BiasTables::at(structure, sequence_.head);
    const uint32_t query[2] = {query_place(first + lane_.row), query_place(first + lane_.row + 8)};
#pragma unroll
    for (int i = 0; i < 2 * kChunkTiles; ++i) {
      if (!has_keys(key + i / 2 * kTile)) continue;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const uint32_t place =
            load_shared<uint32_t>(plan_.places + (key + i * 8 + 2 * lane_.place + (e & 1)) * 4);
        score[i][e] = fmaf(score[i][e], scale, tables(query[e >> 1], place));
      }
    }
  }

  FASTAMR_DEVICE uint32_t query_place(int query) const {
    return query < sequence_.present_queries ? query_ids(call_.shape, call_.structure, sequence_).place(query)
                                             : 0;
  }

  FASTAMR_DEVICE uint32_t mask() const { return plan_.masks + lane_.warp * kTile * kMaskGroups; }

  FASTAMR_DEVICE void fill_mask(int first, int key) const {
    const Structure<float>& structure = call_.structure;
    if (structure.seed) {
      const Philox philox = Philox::from_seed(structure.seed, kStreamDropout);
      const uint32_t row = first_philox_row(call_.shape, structure, sequence_) + first;
      fill_dropout_mask(mask(), philox, structure.threshold, row, kTile, key / 4, kMaskGroups, lane_.lane,
                        32);
    }
    warp_barrier();
  }

  FASTAMR_DEVICE void drop(float (&x)[4], int column) const {
    if (!call_.structure.seed) return;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool stays_in = stays(mask(), kMaskGroups, lane_.row + (e >> 1) * 8, column + (e & 1));
      x[e] = stays_in ? x[e] * call_.structure.inverse_kept : 0.0f;
    }
  }

  const Forward<T, float>& call_;
  const ForwardPlan& plan_;
  const Sequence& sequence_;
  const Lane lane_;
  const uint32_t words_offset_, matrices_offset_;
  const float factor_;
  float out_[E / 8][4];
  float top_[2], base_[2] = {0, 0}, total_[2];
};

template <class T, int E, Form form>
FASTAMR_DEVICE void attention_forward(const Forward<T, float>& call, const ForwardPlan& plan, int index,
                                      int head) {
  const Lane lane = Lane::here();
  const Sequence sequence = Sequence::at<form>(call.shape, call.structure, index, head);
  const TokenRows token_rows = TokenRows::at<form>(call.shape, call.structure, index);
  const HeadRows<Chunk> out = sequence.rows(call.out);
  if (!has_one_chunk<form> && sequence.overlong) return fill_rows<E>(out, sequence.queries, kNaNWord);

  const int rows = form == Form::exact ? kChunkKeys : round_up(sequence.keys, kTile);
  copy_rows<E, form>(0, sequence.rows(call.k), token_rows, 0, sequence.keys, rows);
  copy_rows<E, form>(plan.values, sequence.rows(call.v), token_rows, 0, sequence.keys, rows);
  if (form == Form::full && call.structure.joint_bias) {
    fill_places(plan.places, key_ids(call.shape, call.structure, sequence), 0, sequence.keys, rows);
  }

  const HeadRows<const Chunk> q = sequence.rows(call.q);
  const auto load = [&](int first) {
    TileWords<E> words;
    const int low = first + lane.row, high = low + 8;
    const bool has_low = low < sequence.present_queries, has_high = high < sequence.present_queries;
    const auto row_of = [&](int query, bool exists) {
      if (form == Form::exact || !exists) return exists ? query : 0;
      return call.structure.self_attention ? token_rows.row_of<form>(query) : query;
    };
    words.low = global_row_words<E>(q.row(row_of(low, has_low)), lane.place, has_low);
    words.high = global_row_words<E>(q.row(row_of(high, has_high)), lane.place, has_high);
    return words;
  };
  int first = lane.warp * kTile;
  TileWords<E> query = load(first);  // in flight beside the copies
  wait_for_copies();
  barrier();

  const LseRows<float> lse =
      LseRows<float>::template at<form>(call.lse, call.shape, call.structure, sequence);
  ForwardTile<T, E, form> tile(call, plan, sequence, lane);
  while (first < sequence.queries) {
    tile.run(query, first);
    tile.store(out, lse, first);
    first += lane.warps * kTile;
    query = load(first);
  }
}

}  // namespace fastamr::gpu
