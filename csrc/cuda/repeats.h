// Ids listed more than once in keep: their tokens' gradients meet in one row, and must add up in a fixed
// order.
#pragma once

#include "sequence.h"

namespace fastamr::gpu {

// How often each token's id occurred before it. Rows are then stored in rounds, one occurrence of each id at
// a time: the first overwrites, later ones add.
struct Repeats {
  bool any;         // false for lists in ascending order, which need no counting
  uint32_t counts;  // shared memory, int32 by token

  FASTAMR_DEVICE static Repeats find(const int32_t* keep, int tokens, uint32_t counts) {
    bool ascending = true;
    for (int i = thread_index(); i + 1 < tokens; i += thread_count()) ascending &= keep[i] < keep[i + 1];
    const Repeats out = {!barrier_all(ascending), counts};
    for (int i = thread_index(); out.any && i < tokens; i += thread_count()) {
      int earlier = 0;
      for (int j = 0; j < i; ++j) earlier += keep[j] == keep[i];
      store_shared<int>(counts + i * 4, earlier);
    }
    return out;
  }

  FASTAMR_DEVICE bool is_due(int token, int round) const {
    return !any || load_shared<int>(counts + token * 4) == round;
  }

  // True, for the whole CTA, while another round is needed; what this round stored is then visible to all.
  FASTAMR_DEVICE bool next(int& round, int tokens) const {
    if (!any) return false;
    bool done = true;
    for (int i = thread_index(); i < tokens; i += thread_count()) {
      done &= load_shared<int>(counts + i * 4) <= round;
    }
    ++round;
    return !barrier_all(done);
  }
};

}  // namespace fastamr::gpu
