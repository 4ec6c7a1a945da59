// Attention over a few hundred keys on the CPU, forward and backward: one head of one sequence at a time.
//
// All keys and values of a head fit into the first-level cache, so a row of scores is complete before its softmax is
// taken: no running maximum, no rescaling. The file is compiled once for each instruction set, FASTAMR_KERNELS being
// the name of the table it defines.
#include <cmath>

#include "kernels.h"
#include "rows.h"
#include "structure.h"

namespace fastamr {
namespace {

// Queries processed together: their scores (and the scores' gradients) are the largest temporary.
constexpr int kChunk = 96;

template <class C>
struct Scratch {
  static constexpr int rows = kLargestKeys, padding = 16;

  alignas(64) C k[(rows + padding) * kHeadStride];
  alignas(64) C v[(rows + padding) * kHeadStride];
  alignas(64) C k_panel[kLargestSize * kKeyStride];
  alignas(64) C v_panel[kLargestSize * kKeyStride];
  alignas(64) C dk[rows * kHeadStride];
  alignas(64) C dv[rows * kHeadStride];
  alignas(64) C q[kChunk * kHeadStride];
  alignas(64) C dout[kChunk * kHeadStride];
  alignas(64) C out[kChunk * kHeadStride];
  alignas(64) C weights[kChunk * kKeyStride];
  alignas(64) C dweights[kChunk * kKeyStride];
  alignas(64) C factors[kKeyStride];
  Bias<C> bias;
};

template <class C>
constexpr C kInfinity = static_cast<C>(__builtin_inf());

template <class C>
FASTAMR_INLINE int padded(int count) {
  return (count + Lanes<C>::count - 1) / Lanes<C>::count * Lanes<C>::count;
}

template <class Call>
FASTAMR_INLINE const int32_t* kept_rows(const Call& call, int64_t s) {
  return call.structure.keep == nullptr ? nullptr : call.structure.keep + s * call.shape.keys;
}

// Scores of a chunk of queries, which are in scratch; the places beyond the last key get -inf.
template <class C>
FASTAMR_INLINE void chunk_scores(Scratch<C>& scratch, int64_t first, int rows, int keys, int size) {
  const int width = padded<C>(keys);
  times_panel(scratch.q, scratch.k_panel, scratch.weights, rows, width, size);
  for (int i = 0; i < rows; ++i) {
    C* scores = scratch.weights + i * kKeyStride;
    if (scratch.bias.present()) scratch.bias.add_to(scores, first + i, keys);
    for (int j = keys; j < width; ++j) scores[j] = -kInfinity<C>;
  }
}

// exp(score - shift) in place of the scores; returns the sum.
template <class C>
FASTAMR_INLINE C exponentials(C* row, int width, C shift) {
  Vector<C> sum = {};
  for (int j = 0; j < width; j += Lanes<C>::count) {
    const Vector<C> weight = exponential<C>(load<C>(row + j) - shift);
    store<C>(row + j, weight);
    sum += weight;
  }
  return sum_of<C>(sum);
}

// Softmax without its denominator, which is left in `sum`; returns the log-sum-exp.
template <class C>
FASTAMR_INLINE C softmax(C* row, int width, C& sum) {
  Vector<C> largest = load<C>(row);
  for (int j = Lanes<C>::count; j < width; j += Lanes<C>::count) largest = larger<C>(largest, load<C>(row + j));
  // A row whose bias hides every key has no finite maximum and keeps a sum of 0.
  const C top = largest_of<C>(largest);
  const C shift = top == -kInfinity<C> ? C{0} : top;
  sum = exponentials(row, width, shift);
  return shift + std::log(sum);
}

template <class T, class C>
FASTAMR_INLINE void read_keys(const Rows<const T>& k, const Rows<const T>& v, int64_t s, int64_t h,
                              const Extent& extent, const int32_t* keep, int size, Scratch<C>& scratch) {
  const int width = padded<C>(extent.keys);
  gather<C>(strip_of(k, s, h, extent.first_row, keep), 0, extent.keys, width, size, C{1}, scratch.k);
  gather<C>(strip_of(v, s, h, extent.first_row, keep), 0, extent.keys, width, size, C{1}, scratch.v);
  to_panel(scratch.k, scratch.k_panel, width, size);
}

template <class T, class C>
void forward_head(const Forward<T, C>& call, int64_t s, int64_t h, int64_t grid_rows, Scratch<C>& scratch) {
  const auto& structure = call.structure;
  const auto& shape = call.shape;
  const Extent extent = extent_of(shape, structure, s);
  const auto out = strip_of(call.out, s, h, extent.first_row, nullptr);
  const int64_t rows_beyond = structure.cu_seqlens == nullptr ? shape.queries : extent.queries;
  const int64_t present = extent.keys == 0 ? 0 : extent.queries;
  clear<C>(out, present, rows_beyond, shape.size);
  for (int64_t i = present; i < rows_beyond; ++i) call.lse[lse_index(shape, structure, s, h, i)] = -kInfinity<C>;
  if (present == 0) return;

  const int32_t* keep = kept_rows(call, s);
  read_keys(call.k, call.v, s, h, extent, keep, shape.size, scratch);
  scratch.bias.read(shape, structure, s, h, extent.keys);
  const auto q = strip_of(call.q, s, h, extent.first_row, structure.self_attention ? keep : nullptr);
  const int width = padded<C>(extent.keys);
  for (int64_t first = 0; first < present; first += kChunk) {
    const int rows = static_cast<int>(present - first < kChunk ? present - first : kChunk);
    gather<C>(q, first, rows, rows, shape.size, structure.scale, scratch.q);
    chunk_scores(scratch, first, rows, extent.keys, shape.size);
    C inverse_sums[kChunk];
    for (int i = 0; i < rows; ++i) {
      C* weights = scratch.weights + i * kKeyStride;
      C sum;
      call.lse[lse_index(shape, structure, s, h, first + i)] = softmax(weights, width, sum);
      inverse_sums[i] = sum == 0 ? C{0} : 1 / sum;
      if (structure.seed != nullptr) {
        dropout_factors(structure, (s * shape.heads + h) * grid_rows + first + i, extent.keys, scratch.factors);
        for (int j = 0; j < extent.keys; ++j) weights[j] *= scratch.factors[j];
      }
    }
    weigh(scratch.weights, scratch.v, scratch.out, rows, extent.keys, shape.size);
    for (int i = 0; i < rows; ++i) {
      scatter<C>(scratch.out + i * kHeadStride, 1, shape.size, inverse_sums[i], out, first + i,
                 static_cast<C*>(nullptr));
    }
  }
}

// The task's own sums over its sequences.
template <class C>
struct Partials {
  C* columns[3] = {nullptr, nullptr, nullptr};
  C* joint = nullptr;
  C* time = nullptr;
};

// One row: scratch weights hold scores and become the weights that multiplied V; scratch dweights hold their gradients
// and become those of the scores.
template <class C>
FASTAMR_INLINE void softmax_backward(C* weights, C* dweights, int width, C lse, const C* factors) {
  // lse = -inf: the row attends nothing and its weights are zero, not exp(inf).
  exponentials(weights, width, lse == -kInfinity<C> ? kInfinity<C> : lse);
  Vector<C> products = {};
  for (int j = 0; j < width; j += Lanes<C>::count) {
    Vector<C> gradient = load<C>(dweights + j);
    if (factors != nullptr) {
      gradient *= load<C>(factors + j);
      store<C>(dweights + j, gradient);
    }
    products += load<C>(weights + j) * gradient;
  }
  const C delta = sum_of<C>(products);
  for (int j = 0; j < width; j += Lanes<C>::count) {
    const Vector<C> weight = load<C>(weights + j);
    store<C>(dweights + j, weight * (load<C>(dweights + j) - delta));
    if (factors != nullptr) store<C>(weights + j, weight * load<C>(factors + j));
  }
}

// Weights and score gradients of a chunk of queries, whose q and dout are in scratch.
template <class T, class C>
FASTAMR_INLINE void chunk_backward(const Backward<T, C>& call, int64_t s, int64_t h, int64_t first, int rows, int keys,
                                   int64_t grid_rows, Scratch<C>& scratch, const Partials<C>& partials) {
  const auto& structure = call.structure;
  const auto& shape = call.shape;
  const int width = padded<C>(keys);
  chunk_scores(scratch, first, rows, keys, shape.size);
  times_panel(scratch.dout, scratch.v_panel, scratch.dweights, rows, width, shape.size);
  for (int i = 0; i < rows; ++i) {
    const C* factors = nullptr;
    if (structure.seed != nullptr) {
      for (int j = width - Lanes<C>::count; j < width; ++j) scratch.factors[j] = 0;
      dropout_factors(structure, (s * shape.heads + h) * grid_rows + first + i, keys, scratch.factors);
      factors = scratch.factors;
    }
    C* dscores = scratch.dweights + i * kKeyStride;
    softmax_backward(scratch.weights + i * kKeyStride, dscores, width,
                     call.lse[lse_index(shape, structure, s, h, first + i)], factors);
    if (partials.joint != nullptr) {
      scratch.bias.add_gradient(dscores, first + i, keys, partials.joint, partials.time);
    }
  }
}

template <class T, class C>
void backward_head(const Backward<T, C>& call, int64_t s, int64_t h, int64_t grid_rows, Scratch<C>& scratch,
                   const Partials<C>& partials) {
  const auto& structure = call.structure;
  const auto& shape = call.shape;
  const Extent extent = extent_of(shape, structure, s);
  const int32_t* keep = kept_rows(call, s);
  const int32_t* query_keep = structure.self_attention ? keep : nullptr;
  const auto dq = strip_of(call.dq, s, h, extent.first_row, query_keep);
  const auto dk = strip_of(call.dk, s, h, extent.first_row, keep);
  const auto dv = strip_of(call.dv, s, h, extent.first_row, keep);
  const int64_t present = extent.keys == 0 ? 0 : extent.queries;
  const int keys = present == 0 ? 0 : extent.keys;
  if (structure.cu_seqlens == nullptr) {
    const int64_t query_rows = query_keep == nullptr ? shape.queries : shape.key_rows;
    clear<C>(dq, query_keep == nullptr ? present : 0, query_rows, shape.size);
    clear<C>(dk, keep == nullptr ? keys : 0, shape.key_rows, shape.size);
    clear<C>(dv, keep == nullptr ? keys : 0, shape.key_rows, shape.size);
  }
  if (present == 0) return;

  read_keys(call.k, call.v, s, h, extent, keep, shape.size, scratch);
  to_panel(scratch.v, scratch.v_panel, padded<C>(keys), shape.size);
  scratch.bias.read(shape, structure, s, h, keys);
  const auto q = strip_of(call.q, s, h, extent.first_row, query_keep);
  const auto dout = strip_of(call.dout, s, h, extent.first_row, nullptr);
  for (int64_t first = 0; first < present; first += kChunk) {
    const int rows = static_cast<int>(present - first < kChunk ? present - first : kChunk);
    gather<C>(q, first, rows, rows, shape.size, structure.scale, scratch.q);
    gather<C>(dout, first, rows, rows, shape.size, C{1}, scratch.dout);
    chunk_backward(call, s, h, first, rows, keys, grid_rows, scratch, partials);
    weigh(scratch.dweights, scratch.k, scratch.out, rows, keys, shape.size);
    scatter<C>(scratch.out, rows, shape.size, structure.scale, dq, first, partials.columns[0]);
    weigh_transposed(scratch.dweights, scratch.q, scratch.dk, rows, keys, shape.size, first > 0);
    weigh_transposed(scratch.weights, scratch.dout, scratch.dv, rows, keys, shape.size, first > 0);
  }
  scatter<C>(scratch.dk, keys, shape.size, C{1}, dk, 0, partials.columns[1]);
  scatter<C>(scratch.dv, keys, shape.size, C{1}, dv, 0, partials.columns[2]);
}

// Call `function(sequence, head, task)` for every sequence of the tasks begin .. end.
template <class Function>
FASTAMR_INLINE void each_sequence(const Shape& shape, int64_t begin, int64_t end, Function function) {
  const int64_t step = sequences_per_group(shape);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task / shape.heads * step;
    const int64_t last = first + step < shape.sequences ? first + step : shape.sequences;
    for (int64_t s = first; s < last; ++s) function(s, task % shape.heads, task);
  }
}

template <class T, class C>
void forward(const Forward<T, C>& call, int64_t begin, int64_t end, void* memory) {
  auto& scratch = *static_cast<Scratch<C>*>(memory);
  const int64_t grid_rows = dropout_rows(call.shape, call.structure);
  each_sequence(call.shape, begin, end,
                [&](int64_t s, int64_t h, int64_t) { forward_head(call, s, h, grid_rows, scratch); });
}

template <class T, class C>
void backward(const Backward<T, C>& call, int64_t begin, int64_t end, void* memory, C* partials) {
  auto& scratch = *static_cast<Scratch<C>*>(memory);
  const int64_t grid_rows = dropout_rows(call.shape, call.structure);
  const int64_t partial = partial_size(call.shape, call.structure);
  const int size = call.shape.size;
  each_sequence(call.shape, begin, end, [&](int64_t s, int64_t h, int64_t task) {
    Partials<C> mine;
    if (partials != nullptr) {
      C* sums = partials + task * partial;
      for (int i = 0; i < 3; ++i) mine.columns[i] = sums + i * size;
      if (call.joint_gradient != nullptr) {
        mine.joint = sums + 3 * size;
        mine.time = mine.joint + call.structure.joints * call.structure.joints;
      }
    }
    backward_head(call, s, h, grid_rows, scratch, mine);
  });
}

template <class T, class C>
constexpr Functions<T, C> functions() {
  return {forward<T, C>, backward<T, C>, sizeof(Scratch<C>)};
}

}  // namespace

extern const Kernels FASTAMR_KERNELS = {
    FASTAMR_KERNELS_NAME,
    functions<float, float>(),
    functions<BFloat16, float>(),
    functions<double, double>(),
};

}  // namespace fastamr
