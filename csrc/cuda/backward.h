// Attention backward for one sequence and head. A warp owns 16 keys (or twice 16): it computes the transposed
// scores and weight gradients against 16 queries at a time, so that dk and dv stay in its registers; only the
// score gradients go through shared memory, from where warps take 16 queries each for dq. No atomics: every
// sum has a fixed order.
#pragma once

#include "backward_plan.h"
#include "dropout.h"
#include "repeats.h"

namespace fastamr::gpu {

template <class T, int E, Form form>
class BackwardCta {
 public:
  FASTAMR_DEVICE BackwardCta(const Backward<T, float>& call, const BackwardPlan& plan, int index, int head,
                             bool fresh)
      : call_(call),
        plan_(plan),
        lane_(Lane::here()),
        fresh_(fresh),
        sequence_(Sequence::at<form>(call.shape, call.structure, index, head)),
        token_rows_(TokenRows::at<form>(call.shape, call.structure, index)),
        words_offset_(Panel<E>::words_offset(lane_)),
        matrices_offset_(Panel<E>::matrices_offset(lane_)),
        key_tiles_(form == Form::exact ? kChunkTiles : (sequence_.keys + kTile - 1) / kTile) {}

  FASTAMR_DEVICE void run() {
    if (!has_one_chunk<form> && sequence_.overlong) refuse();
    prepare_keys();
#pragma unroll
    for (int own = 0; own < kOwned; ++own) {
#pragma unroll
      for (int d = 0; d < E / 8; ++d) {
#pragma unroll
        for (int e = 0; e < 4; ++e) dk_[own][d][e] = dv_[own][d][e] = 0;
      }
    }
    int start = 0;
    do {
      const int left = sequence_.queries - start;
      const int rows = left < plan_.block_rows ? left : plan_.block_rows;
      // Overwrites what no warp reads after the second barrier of the block before.
      load_block(start, round_up(rows, kTile));
      wait_for_copies();
      barrier();
      if (kHeld && start == 0) hold_keys();
      score_block(start, rows);
      if (has_one_chunk<form> || rows == left) store_key_gradients();
      barrier();
      if constexpr (form == Form::full) add_bias_gradients(start, rows);
      store_query_gradients(start, rows);
      start += plan_.block_rows;
    } while (!has_one_chunk<form> && start < sequence_.queries);
    if (!plan_.column_partials) return;
    barrier();
    const int64_t width = 3 * call_.shape.heads * E;
    const bool overlong = !has_one_chunk<form> && sequence_.overlong;
    columns().finish(plan_.column_partials + group() * width, static_cast<int>(call_.shape.heads),
                     sequence_.head, fresh_, overlong ? kNaN : 0.0f);
  }

 private:
  // Nothing is computed for a sequence that does not fit; NaN says so.
  FASTAMR_DEVICE void refuse() {
    fill_rows<E>(sequence_.rows(call_.dq), sequence_.queries, kNaNWord);
    fill_rows<E>(sequence_.rows(call_.dk), sequence_.queries, kNaNWord);
    fill_rows<E>(sequence_.rows(call_.dv), sequence_.queries, kNaNWord);
    sequence_.queries = 0;
  }

  FASTAMR_DEVICE void prepare_keys() {
    const int rows = key_tiles_ * kTile;
    copy_rows<E, form>(0, sequence_.rows(call_.k), token_rows_, 0, sequence_.keys, rows);
    copy_rows<E, form>(plan_.values, sequence_.rows(call_.v), token_rows_, 0, sequence_.keys, rows);
    if (plan_.column_partials) columns().clear();
    if constexpr (form != Form::exact) {
      if (token_rows_.keep) repeats_ = Repeats::find(token_rows_.keep, sequence_.keys, plan_.repeats);
    }
    if constexpr (form == Form::full) {
      if (!call_.structure.joint_bias) return;
      fill_places(plan_.key_places, key_ids(call_.shape, call_.structure, sequence_), 0, sequence_.keys,
                  rows);
      if (!plan_.joint_partials) return;
      barrier();
      key_chains(0).build(plan_.key_places, sequence_.keys, 0);
      key_chains(1).build(plan_.key_places, sequence_.keys, 16);
    }
  }

  FASTAMR_DEVICE void load_block(int start, int rows) {
    const TokenRows query_rows = {call_.structure.self_attention ? token_rows_.keep : nullptr};
    copy_rows<E, form>(plan_.queries, sequence_.rows(call_.q), query_rows, start, sequence_.present_queries,
                       rows, QueryTile<E>::gap);
    load_out_gradients(start, rows);
    const LseRows<const float> lse =
        LseRows<const float>::template at<form>(call_.lse, call_.shape, call_.structure, sequence_);
    for (int i = thread_index(); i < rows; i += thread_count()) {
      // Infinity makes every weight of an absent row, and of one without keys, zero.
      const float value = start + i < sequence_.present_queries ? lse[start + i] * kLog2E : kInfinity;
      store_shared<float>(query_tile(i) + QueryTile<E>::lse + i % kTile * 4,
                          value == -kInfinity ? kInfinity : value);
    }
    if constexpr (form == Form::full) load_block_extras(start, rows);
  }

  // Rows of dout, and delta = rowsum(dout * out), while the copies are in flight.
  FASTAMR_DEVICE void load_out_gradients(int start, int rows) {
    const HeadRows<const Chunk> dout = sequence_.rows(call_.dout), out = sequence_.rows(call_.out);
    const uint32_t panel = plan_.queries + QueryTile<E>::out_gradients;
#pragma unroll 2
    for (ChunkWalk<E> walk = ChunkWalk<E>::start(); walk.row < rows; walk.next()) {
      Chunk gradient = {}, output = {};
      if (start + walk.row < sequence_.present_queries) {
        gradient = load_constant(dout.at(start + walk.row, walk.chunk));
        output = load_constant(out.at(start + walk.row, walk.chunk));
      }
      const uint32_t tile = query_tile(walk.row);
      store_shared(panel + walk.offset + walk.row / kTile * QueryTile<E>::gap, gradient);
      float delta = 0;
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const Pair a = unpack<T>(gradient.word[w]), b = unpack<T>(output.word[w]);
        delta = fmaf(a.first, b.first, fmaf(a.second, b.second, delta));
      }
#pragma unroll
      for (int mask = 1; mask < Panel<E>::chunks; mask *= 2) delta += shuffle_xor(delta, mask);
      if (walk.chunk == 0) store_shared<float>(tile + QueryTile<E>::delta + walk.row % kTile * 4, delta);
    }
  }

  // Tile of the block that a query lies in.
  FASTAMR_DEVICE uint32_t query_tile(int query) const {
    return plan_.queries + static_cast<unsigned>(query) / kTile * QueryTile<E>::bytes;
  }

  FASTAMR_DEVICE void load_block_extras(int start, int rows) {
    const Structure<float>& structure = call_.structure;
    if (structure.joint_bias) {
      fill_places(plan_.query_places, query_ids(call_.shape, structure, sequence_), start,
                  sequence_.present_queries, rows);
    }
    if (structure.seed) {
      const Philox philox = Philox::from_seed(structure.seed, kStreamDropout);
      const uint32_t row = first_philox_row(call_.shape, structure, sequence_) + start;
      fill_dropout_mask(plan_.mask, philox, structure.threshold, row, rows, 0, mask_groups(), thread_index(),
                        thread_count());
    }
  }

  static constexpr int kOwned = kOwnedTiles<E, form>;
  // Whether K and V of the warp's keys stay in registers, or are read again for each 16 queries.
  static constexpr bool kHeld = E <= 32 && kOwned == 1;

  // Tile of keys that the warp owns, and the lane's key in half 0 or 1 of it.
  FASTAMR_DEVICE int own_tile(int own) const { return lane_.warp + own * lane_.warps; }
  FASTAMR_DEVICE int own_key(int own, int half) const { return own_tile(own) * kTile + half * 8 + lane_.row; }
  FASTAMR_DEVICE uint32_t own_rows(int own, uint32_t panel) const {
    return panel + own_tile(own) * kTile * Panel<E>::row_bytes;
  }
  FASTAMR_DEVICE bool has_keys(int own) const { return form == Form::exact || own_tile(own) < key_tiles_; }

  FASTAMR_DEVICE void hold_keys() {
    if (!has_keys(0)) return;
    key_words_ = shared_tile_words<E>(own_rows(0, 0), words_offset_);
    value_words_ = shared_tile_words<E>(own_rows(0, plan_.values), words_offset_);
  }

  // Adds a block's share to dk and dv, and leaves the gradients of its scores in shared memory.
  FASTAMR_DEVICE void score_block(int start, int rows) {
    const int present = sequence_.present_queries - start;
    const int end = form == Form::exact || rows < present ? rows : present;
    uint32_t tile = plan_.queries;
    uint32_t column = plan_.score_gradients + lane_.place * 4;
#pragma unroll 1
    for (int first = 0; first < end; first += kTile, tile += QueryTile<E>::bytes, column += 2 * kTile) {
#pragma unroll
      for (int own = 0; own < kOwned; ++own) {
        if (has_keys(own)) score_tile(own, first, tile, column + own_key(own, 0) * plan_.stride);
      }
    }
  }

  // 16 queries against the warp's tile `own`; `cell` is the lane's place in the score gradients.
  FASTAMR_DEVICE void score_tile(int own, int first, uint32_t tile, uint32_t cell) {
    uint32_t weights[4], gradients[4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t rows = tile + half * 8 * Panel<E>::row_bytes;
      float score[4] = {}, weight_gradient[4] = {};
      contract_keys(score, key_words_, own_rows(own, 0), rows);
      contract_keys(weight_gradient, value_words_, own_rows(own, plan_.values),
                    rows + QueryTile<E>::out_gradients);
      const int query = half * 8 + 2 * lane_.place;
      differentiate(score, weight_gradient, own, first + query, tile + query * 4);
      weights[half * 2] = pack<T>(score[0], score[1]);
      weights[half * 2 + 1] = pack<T>(score[2], score[3]);
      gradients[half * 2] = pack<T>(weight_gradient[0], weight_gradient[1]);
      gradients[half * 2 + 1] = pack<T>(weight_gradient[2], weight_gradient[3]);
      store_shared<uint32_t>(cell + half * 16, gradients[half * 2]);
      store_shared<uint32_t>(cell + half * 16 + 8 * plan_.stride, gradients[half * 2 + 1]);
    }
    multiply_rows<T, E>(dv_[own], weights, tile + QueryTile<E>::out_gradients, matrices_offset_);
    multiply_rows<T, E>(dk_[own], gradients, tile, matrices_offset_);
  }

  // sum (16 x 8) += the warp's rows of K or V * eight rows of queries or of dout.
  FASTAMR_DEVICE void contract_keys(float (&sum)[4], const TileWords<E>& held, uint32_t tile,
                                    uint32_t rows) const {
    if constexpr (kHeld) {
      contract_rows<T, E>(sum, held, shared_row_words<E>(rows, words_offset_));
    } else {
      contract_panels<T, E>(sum, tile, rows, words_offset_);
    }
  }

  // Turns scores into weights (as they multiply V) and weight gradients into score gradients, in place, for
  // queries `query` and `query + 1` of the block, whose log-sum-exp and delta lie at `statistics` in their
  // tile.
  FASTAMR_DEVICE void differentiate(float (&score)[4], float (&gradient)[4], int own, int query,
                                    uint32_t statistics) const {
    const Pair lse = load_shared<Pair>(statistics + QueryTile<E>::lse);
    const Pair delta = load_shared<Pair>(statistics + QueryTile<E>::delta);
    const float factor = call_.structure.scale * kLog2E;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool exists = own_key(own, e >> 1) < sequence_.keys;
      const float row_lse = e & 1 ? lse.second : lse.first, row_delta = e & 1 ? delta.second : delta.first;
      float exponent = fmaf(score[e], factor, -row_lse);
      if constexpr (form == Form::full) exponent += bias(query + (e & 1), own_key(own, e >> 1));
      const float weight = exists ? exp2_fast(exponent) : 0.0f;
      score[e] = weight;
      if constexpr (form == Form::full) {
        const float kept = kept_factor(query + (e & 1), own_key(own, e >> 1));
        score[e] *= kept;
        gradient[e] *= kept;
      }
      gradient[e] = weight * (gradient[e] - row_delta);
    }
  }

  FASTAMR_DEVICE float bias(int query, int key) const {
    if (!call_.structure.joint_bias) return 0.0f;
    const uint32_t query_place = load_shared<uint32_t>(plan_.query_places + query * 4);
    const uint32_t key_place = load_shared<uint32_t>(plan_.key_places + key * 4);
    return BiasTables::at(call_.structure, sequence_.head)(query_place, key_place);
  }

  FASTAMR_DEVICE int mask_groups() const { return plan_.key_rows / 4; }

  FASTAMR_DEVICE float kept_factor(int query, int key) const {
    if (!call_.structure.seed) return 1.0f;
    return stays(plan_.mask, mask_groups(), query, key) ? call_.structure.inverse_kept : 0.0f;
  }

  FASTAMR_DEVICE void store_key_gradients() {
    const bool padded = form != Form::exact && !call_.structure.cu_seqlens && !token_rows_.keep;
    const int rows = padded ? static_cast<int>(call_.shape.keys) : sequence_.keys;
    const float scale = call_.structure.scale;
    int round = 0;
    do {
#pragma unroll
      for (int own = 0; own < kOwned; ++own) {
        const int first = own_tile(own) * kTile;
        if (plan_.column_partials && round == 0) {
          columns().add(dk_[own], scale, 1);
          columns().add(dv_[own], 1.0f, 2);
        }
        store_rows(sequence_.rows(call_.dv), dv_[own], 1.0f, first, rows, token_rows_, round);
        store_rows(sequence_.rows(call_.dk), dk_[own], scale, first, rows, token_rows_, round);
      }
    } while (form != Form::exact && repeats_.next(round, sequence_.keys));
  }

  // Stores rows `first` to `first + 15`, of those below `rows`, that are due in this round.
  FASTAMR_DEVICE void store_rows(const HeadRows<Chunk>& target, const float (&tile)[E / 8][4], float factor,
                                 int first, int rows, const TokenRows& token_rows, int round) const {
    TileTarget to = {};
    to.add = round > 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = first + lane_.row + half * 8;
      to.store[half] = token < rows;
      if constexpr (form != Form::exact) {
        if (token_rows.keep && to.store[half]) to.store[half] = repeats_.is_due(token, round);
      }
      to.row[half] = target.row(to.store[half] ? token_rows.template row_of<form>(token) : 0);
    }
    store_tile<T, E, form != Form::exact>(tile, {factor, factor}, to, lane_);
  }

  FASTAMR_DEVICE void store_query_gradients(int start, int rows) {
    const bool gathered = form != Form::exact && call_.structure.self_attention && token_rows_.keep;
    const TokenRows query_rows = {gathered ? token_rows_.keep : nullptr};
    const int written = gathered ? sequence_.keys : sequence_.queries;
    int round = 0;
    do {
      for (int first = lane_.warp * kTile; first < rows; first += lane_.warps * kTile) {
        float dq[E / 8][4] = {};
        if (form == Form::exact || start + first < sequence_.present_queries) multiply_keys(dq, first);
        if (plan_.column_partials && round == 0) columns().add(dq, call_.structure.scale, 0);
        store_rows(sequence_.rows(call_.dq), dq, call_.structure.scale, start + first, written, query_rows,
                   round);
      }
    } while (gathered && repeats_.next(round, sequence_.keys));
  }

  // dq of 16 queries of the block: their score gradients, read transposed, times K.
  FASTAMR_DEVICE void multiply_keys(float (&dq)[E / 8][4], int first) const {
    const int key = (lane_.lane & 7) + (lane_.lane >> 4) * 8, query = first + (lane_.lane >> 3 & 1) * 8;
    const uint32_t cell = plan_.score_gradients + key * plan_.stride + query * 2;
#pragma unroll(form == Form::exact ? kChunkTiles : 1)
    for (int tile = 0; tile < key_tiles_; ++tile) {
      uint32_t gradients[4];
      load_matrices_transposed(gradients, cell + tile * kTile * plan_.stride);
      multiply_rows<T, E>(dq, gradients, tile * kTile * Panel<E>::row_bytes, matrices_offset_);
    }
  }

  FASTAMR_DEVICE int64_t group() const {
    return form == Form::full ? sequence_.index % plan_.groups : sequence_.index;
  }
  FASTAMR_DEVICE ColumnSums<E> columns() const { return {plan_.columns, lane_}; }

  // Chains of the keys, then of the block's queries, by joint (which = 0) or time patch (1).
  FASTAMR_DEVICE Chains key_chains(int which) const { return chains(plan_.chains, plan_.key_rows, which); }
  FASTAMR_DEVICE Chains query_chains(int which) const {
    const Chains last = key_chains(1);
    return chains(last.head + Chains::bytes(plan_.key_rows, last.buckets), plan_.block_rows, which);
  }
  FASTAMR_DEVICE Chains chains(uint32_t base, int tokens, int which) const {
    const int joints = call_.structure.joints, patches = (call_.structure.offsets + 1) / 2;
    if (which == 1) base += Chains::bytes(tokens, joints);
    const int buckets = which == 0 ? joints : patches;
    return {base, base + buckets * 2, buckets};
  }

  FASTAMR_DEVICE void add_bias_gradients(int start, int rows) {
    if (!plan_.joint_partials) return;
    const int present = sequence_.present_queries - start;
    const int tokens = present < 0 ? 0 : present < rows ? present : rows;
    query_chains(0).build(plan_.query_places, tokens, 0);
    query_chains(1).build(plan_.query_places, tokens, 16);
    barrier();
    const ScoreGradients<T> gradients = {plan_.score_gradients, plan_.stride};
    const Structure<float>& structure = call_.structure;
    const int64_t cta = group() * call_.shape.heads + sequence_.head;
    const bool fresh = fresh_ && start == 0;
    add_joint_gradient(plan_.joint_partials + cta * structure.joints * structure.joints, gradients,
                       query_chains(0), key_chains(0), structure.joints, fresh);
    add_time_gradient(plan_.time_partials + cta * structure.offsets, gradients, query_chains(1),
                      key_chains(1), structure.offsets, fresh);
  }

  const Backward<T, float>& call_;
  const BackwardPlan& plan_;
  const Lane lane_;
  const bool fresh_;  // nothing has been added to this CTA's share of the sums yet
  Sequence sequence_;
  const TokenRows token_rows_;
  const uint32_t words_offset_, matrices_offset_;
  const int key_tiles_;
  Repeats repeats_ = {};
  TileWords<E> key_words_, value_words_;
  float dk_[kOwned][E / 8][4], dv_[kOwned][E / 8][4];
};

// A CTA takes the sequences group, group + groups, ... of one head.
template <class T, int E, Form form>
FASTAMR_DEVICE void attention_backward(const Backward<T, float>& call, const BackwardPlan& plan, int group,
                                       int head) {
  int index = group;
  do {
    BackwardCta<T, E, form>(call, plan, index, head, index == group).run();
    index += plan.groups;
    if (form != Form::full || index >= call.shape.sequences) return;
    barrier();  // before the next sequence overwrites this one
  } while (true);
}

}  // namespace fastamr::gpu
