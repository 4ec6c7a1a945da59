// What the adapters of both devices share: the raw functions' arguments and the sizes that follow from them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "torch_tensors.h"
#include "visible_attention.h"

// Define both raw functions for a device, "cpu" or "cuda", in the library m.
#define FASTAMR_DEFINE_ATTENTION(m, device)                                                                            \
  m.def("visible_attention_forward_" device                                                                            \
        "(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!) lse, Tensor? keep, Tensor? counts, "                \
        "Tensor? cu_seqlens, Tensor? joint_bias, Tensor? time_bias, Tensor? query_ids, Tensor? key_ids, Tensor? seed, " \
        "float scale, float dropout, bool self_attention) -> ()");                                                     \
  m.def("visible_attention_backward_" device                                                                           \
        "(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor(a!) dq, Tensor(b!) dk, "           \
        "Tensor(c!) dv, Tensor(d!)? columns, Tensor(e!)? djoint, Tensor(f!)? dtime, Tensor? keep, Tensor? counts, "    \
        "Tensor? cu_seqlens, Tensor? joint_bias, Tensor? time_bias, Tensor? query_ids, Tensor? key_ids, Tensor? seed, " \
        "float scale, float dropout, bool self_attention) -> ()")

namespace fastamr {

// The arguments that forward and backward share.
struct Arguments {
  const Tensor& q;
  const Tensor& k;
  const Optional& keep;
  const Optional& counts;
  const Optional& cu_seqlens;
  const Optional& joint_bias;
  const Optional& time_bias;
  const Optional& query_ids;
  const Optional& key_ids;
  const Optional& seed;
  double scale;
  double dropout;
  bool self_attention;
};

// Raise unless a tensor of rows is (S, rows, H, E), or with cu_seqlens (rows, H, E), and of q's dtype; an address that
// is written to must not belong to two of its elements.
inline void check_rows(const Tensor& tensor, const Shape& shape, bool packed, int64_t rows, ScalarType type,
                       bool written, const char* name) {
  const int64_t rank = tensor.dim(), expected = packed ? 3 : 4;
  STD_TORCH_CHECK(rank == expected && (packed || tensor.size(0) == shape.sequences) && tensor.size(rank - 3) == rows &&
                      tensor.size(rank - 2) == shape.heads && tensor.size(rank - 1) == shape.size,
                  name, " must have shape (", shape.sequences, ", ", rows, ", ", shape.heads, ", ", shape.size,
                  "), or with cu_seqlens the same without the first");
  STD_TORCH_CHECK(tensor.scalar_type() == type, name, " must be of q's dtype");
  if (tensor.numel() == 0) return;
  STD_TORCH_CHECK(tensor.stride(rank - 1) == 1, name, " must be contiguous over its last dimension, got stride ",
                  tensor.stride(rank - 1));
  if (!written) return;
  // By ascending stride, each step must lead past all that the steps before reach.
  std::vector<std::pair<int64_t, int64_t>> steps;
  for (int64_t d = 0; d + 1 < rank; ++d) {
    if (tensor.size(d) > 1) steps.emplace_back(tensor.stride(d), tensor.size(d));
  }
  std::sort(steps.begin(), steps.end());
  int64_t reach = shape.size;
  for (const auto& [stride, size] : steps) {
    STD_TORCH_CHECK(stride >= reach, name, " is written to, but its elements overlap");
    reach += (size - 1) * stride;
  }
}

inline Shape shape_of(const Arguments& given) {
  const bool packed = given.cu_seqlens.has_value();
  STD_TORCH_CHECK(given.q.dim() == (packed ? 3 : 4) && given.k.dim() == given.q.dim(),
                  "q and k must be (S, N, H, E), with cu_seqlens (total, H, E)");
  const int64_t rank = given.q.dim();
  Shape shape;
  shape.heads = given.q.size(rank - 2);
  shape.size = static_cast<int>(given.q.size(rank - 1));
  shape.key_rows = given.k.size(rank - 3);
  if (packed) {
    STD_TORCH_CHECK(given.cu_seqlens->dim() == 1 && given.cu_seqlens->numel() >= 1,
                    "cu_seqlens must be (S + 1,): at least one number");
    STD_TORCH_CHECK(given.self_attention && !given.keep.has_value() && !given.counts.has_value() &&
                        !given.joint_bias.has_value(),
                    "cu_seqlens serves self-attention without keep, counts and bias");
    shape.sequences = given.cu_seqlens->numel() - 1;
    shape.queries = shape.keys = given.q.size(0);
  } else {
    shape.sequences = given.q.size(0);
    STD_TORCH_CHECK(!given.keep.has_value() || given.keep->dim() == 2, "keep must be (S, K)");
    shape.keys = given.keep.has_value() ? given.keep->size(1) : shape.key_rows;
    shape.queries = given.self_attention ? shape.keys : given.q.size(1);
  }
  STD_TORCH_CHECK(shape.size == 16 || shape.size == 32 || shape.size == 64,
                  "the head size must be 16, 32 or 64, got ", shape.size);
  STD_TORCH_CHECK(packed || shape.keys <= 256, "at most 256 keys are attended, got ", shape.keys);
  STD_TORCH_CHECK(shape.queries <= INT32_MAX && shape.sequences <= INT32_MAX && shape.key_rows <= INT32_MAX &&
                      shape.heads <= INT32_MAX,
                  "too many rows, heads or sequences");
  return shape;
}

// Rows of q, and numbers in the log-sum-exp.
inline int64_t query_rows(const Shape& shape, bool self_attention) {
  return self_attention ? shape.key_rows : shape.queries;
}

inline int64_t statistics_of(const Shape& shape, bool packed) {
  return (packed ? 1 : shape.sequences) * shape.heads * shape.queries;
}

template <class C, bool Gpu>
Structure<C> structure_of(const Arguments& given, const Shape& shape) {
  Structure<C> structure;
  const int64_t sequences = shape.sequences;
  const auto ids = [&](const Optional& tensor, int64_t count, const char* name) {
    return data_of<int32_t, Gpu>(tensor, count, name);
  };
  structure.self_attention = given.self_attention;
  structure.keep = ids(given.keep, sequences * shape.keys, "keep");
  structure.counts = ids(given.counts, sequences, "counts");
  structure.cu_seqlens = ids(given.cu_seqlens, sequences + 1, "cu_seqlens");
  if (given.joint_bias.has_value()) {
    STD_TORCH_CHECK(given.time_bias.has_value() && given.joint_bias->dim() == 3 && given.time_bias->dim() == 2,
                    "joint_bias (H, V, V) needs time_bias (H, R)");
    STD_TORCH_CHECK(given.joint_bias->size(1) < 65536 && given.time_bias->size(1) < 65536,
                    "the bias tables are too large");
    STD_TORCH_CHECK(given.time_bias->size(1) % 2 == 1, "time_bias (H, R) needs an odd R = 2*T/l - 1");
    structure.joints = static_cast<int>(given.joint_bias->size(1));
    structure.offsets = static_cast<int>(given.time_bias->size(1));
    const int64_t pairs = int64_t{structure.joints} * structure.joints;
    structure.joint_bias = data_of<C, Gpu>(given.joint_bias, shape.heads * pairs, "joint_bias");
    structure.time_bias = data_of<C, Gpu>(given.time_bias, shape.heads * structure.offsets, "time_bias");
    structure.query_ids = ids(given.query_ids, sequences * shape.queries, "query_ids");
    structure.key_ids = ids(given.key_ids, sequences * shape.keys, "key_ids");
  }
  STD_TORCH_CHECK(given.dropout >= 0 && std::nearbyint(given.dropout * 4294967296.0) < 4294967296.0,
                  "dropout must be at least 0 and below 1 by more than 2^-33, got ", given.dropout);
  if (given.dropout > 0) {
    structure.seed = data_of<int64_t, Gpu>(given.seed, 2, "seed");
    STD_TORCH_CHECK(structure.seed != nullptr, "dropout needs a seed");
    structure.threshold = static_cast<uint32_t>(std::nearbyint(given.dropout * 4294967296.0));
    structure.inverse_kept = static_cast<C>(1 / (1 - given.dropout));
  }
  structure.scale = static_cast<C>(given.scale);
  return structure;
}

// The gradients' sums that a backward writes where they are asked for.
template <bool Gpu, class T, class C>
void add_sums(Backward<T, C>& call, const Optional& columns, const Optional& djoint, const Optional& dtime) {
  const Structure<C>& structure = call.structure;
  const int64_t heads = call.shape.heads, pairs = int64_t{structure.joints} * structure.joints;
  call.columns = data_of<C, Gpu>(columns, 3 * heads * call.shape.size, "columns");
  call.joint_gradient = data_of<C, Gpu>(djoint, heads * pairs, "djoint");
  call.time_gradient = data_of<C, Gpu>(dtime, heads * structure.offsets, "dtime");
  STD_TORCH_CHECK((call.joint_gradient == nullptr) == (call.time_gradient == nullptr),
                  "djoint and dtime come together");
}

}  // namespace fastamr
