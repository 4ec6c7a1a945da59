// What a call of visible attention is, as plain pointers: the one interface of the CPU and the CUDA kernels.
//
// Every view has the head size E as its innermost, contiguous dimension; the other strides count elements and are
// free, so that q, k, v and their gradients may be slices of packed projections or of larger buffers.
//
// S sequences, Nq queries, Nk keys, H heads, E head size, V joints, R = 2*T/l - 1 time offsets.
// Tokens carry ids `time_patch * V + joint`.
//
// The raw torch functions that adapt this interface (csrc/torch_cpu.cpp, csrc/torch_cuda.cpp) take optional
// arguments, the mutable ones included, as `std::optional<torch::stable::Tensor>`: the stable ABI carries
// `Tensor(a!)?` like `Tensor?`. Index tensors are int32 and contiguous; `seed` is int64; the bias tables, the lse,
// the column sums and the tables' gradients are contiguous and of the compute type (float; double for double).
// Inputs, outputs and gradients share one storage type. Python converts what differs.
#pragma once

#include <cstdint>

namespace fastamr {

// A view (S, N, H, E). With cu_seqlens it is (total, H, E) and `sequence` is 0.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t sequence = 0;
  int64_t row = 0;
  int64_t head = 0;
};

// Sizes of a call. `queries` is Nq. `keys` is Nk, the number of keys attended: the columns of keep where keep is
// given (then k and v have `key_rows` rows), else the rows of k. In self-attention with keep, queries = keys and q
// has `key_rows` rows too. With cu_seqlens queries = keys = key_rows = total rows, and a sequence's length comes
// from cu_seqlens alone.
struct Shape {
  int64_t sequences = 0;
  int64_t heads = 0;
  int64_t queries = 0;
  int64_t keys = 0;
  int64_t key_rows = 0;
  int size = 0;
};

// Everything else. C is the compute type: float, or double for double inputs. Null pointers mean "absent".
template <class C>
struct Structure {
  // Self-attention: keep and counts hold for the queries too. out and dout have Nq rows, as listed by keep; q, k, v
  // and dq, dk, dv have full length.
  bool self_attention = false;
  const int32_t* keep = nullptr;        // (S, Nk) rows of k and v; an id may repeat, its gradients then add up
  const int32_t* counts = nullptr;      // (S,) keys that exist; 0 gives zeros and lse = -inf
  const int32_t* cu_seqlens = nullptr;  // (S + 1,) first row of each sequence

  // Additive bias joint_bias[h][query % V][key % V] + time_bias[h][query / V - key / V + R / 2].
  const C* joint_bias = nullptr;  // (H, V, V)
  const C* time_bias = nullptr;   // (H, R)
  int joints = 0;                 // V
  int offsets = 0;                // R
  const int32_t* query_ids = nullptr;  // (S, Nq); null: keep in self-attention, else 0, 1, 2, ...
  const int32_t* key_ids = nullptr;    // (S, Nk); null: keep, else 0, 1, 2, ...

  // Dropout of attention weights. The word of weight (s, h, i, j) is column j of row (s*H + h)*Nq + i (its low 32
  // bits) of Philox stream 4; with cu_seqlens Nq is the length of the longest sequence. A weight whose word is below
  // `threshold` = round(dropout * 2^32) is dropped, the others are multiplied by `inverse_kept` = 1 / (1 - dropout).
  const int64_t* seed = nullptr;  // (2,) key and counter; null: no dropout
  uint32_t threshold = 0;
  C inverse_kept = 1;

  C scale = 1;  // factor of q.k
};

// out (S, Nq, H, E) and lse: (S, H, Nq); with cu_seqlens (total, H). Rows of absent queries are written as 0 in out;
// their lse is that of the keys that exist (what the reference's padded row gives) or -inf, and is never read.
template <class T, class C>
struct Forward {
  Shape shape;
  Structure<C> structure;
  Rows<const T> q, k, v;
  Rows<T> out;
  C* lse = nullptr;
};

// Gradients. dq, dk, dv have the rows of q, k, v; every row is written, never accumulated into, and is zero where no
// token is listed or exists. `out` is the forward's, for rowsum(dout * out).
template <class T, class C>
struct Backward {
  Shape shape;
  Structure<C> structure;
  Rows<const T> dout, q, k, v, out;
  const C* lse = nullptr;
  Rows<T> dq, dk, dv;
  C* columns = nullptr;           // (3, H, E) or null: sums of dq, dk, dv over sequences and rows (bias gradients)
  C* joint_gradient = nullptr;    // (H, V, V) or null
  C* time_gradient = nullptr;     // (H, R) or null
};

}  // namespace fastamr
