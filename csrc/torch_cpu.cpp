// The CPU kernels as raw torch functions through the stable ABI. Shapes, strides and ids are checked here once more,
// because a wrong one would write outside a tensor; what a user sees is checked in fastamr/ops.
#include <torch/csrc/stable/library.h>

#include "cpu/run.h"
#include "torch_arguments.h"

namespace fastamr {
namespace {

// A view (S, N, H, E), or with cu_seqlens (total, H, E), of `rows` rows.
template <class T>
Rows<T> rows_of(const Tensor& tensor, const Shape& shape, bool packed, int64_t rows, const char* name) {
  STD_TORCH_CHECK(tensor.is_cpu(), name, " must be on the CPU");
  check_rows(tensor, shape, packed, rows, type_of<std::remove_const_t<T>>, !std::is_const_v<T>, name);
  const int64_t rank = tensor.dim();
  T* data = static_cast<T*>(const_cast<void*>(tensor.const_data_ptr()));
  return {data, rank == 4 ? tensor.stride(0) : 0, tensor.stride(rank - 3), tensor.stride(rank - 2)};
}

void check_cu_seqlens(const int32_t* cu_seqlens, const Shape& shape) {
  STD_TORCH_CHECK(cu_seqlens[0] == 0 && cu_seqlens[shape.sequences] == shape.queries,
                  "cu_seqlens must begin with 0 and end with the number of rows, ", shape.queries);
  for (int64_t s = 0; s < shape.sequences; ++s) {
    const int64_t length = int64_t{cu_seqlens[s + 1]} - cu_seqlens[s];
    STD_TORCH_CHECK(length >= 0 && length <= 256, "cu_seqlens: sequence ", s, " has length ", length,
                    "; the extension attends 0 to 256 keys (take backend='reference' for longer ones)");
  }
}

// Tokens of sequence s that take part.
int64_t tokens_of(const int32_t* counts, int64_t s, int64_t all) {
  if (counts == nullptr || counts[s] > all) return all;
  return counts[s] < 0 ? 0 : counts[s];
}

template <class C>
void check_keep(const Shape& shape, const Structure<C>& structure) {
  if (structure.keep == nullptr) return;
  for (int64_t s = 0; s < shape.sequences; ++s) {
    for (int64_t j = 0; j < tokens_of(structure.counts, s, shape.keys); ++j) {
      const int32_t id = structure.keep[s * shape.keys + j];
      STD_TORCH_CHECK(id >= 0 && id < shape.key_rows, "keep lists token ", id, " in sequence ", s, ": expected 0 to ",
                      shape.key_rows - 1);
    }
  }
}

// Least and greatest of the first `count` ids; without ids they count 0, 1, 2, ...
struct Range {
  int32_t least = INT32_MAX;
  int32_t greatest = INT32_MIN;

  Range(const int32_t* ids, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const int32_t id = ids == nullptr ? static_cast<int32_t>(i) : ids[i];
      least = id < least ? id : least;
      greatest = id > greatest ? id : greatest;
    }
  }
};

// All time offsets between the queries and the keys that exist must lie inside the table.
template <class C>
void check_ids(const Shape& shape, const Structure<C>& structure) {
  if (structure.joint_bias == nullptr) return;
  for (int64_t s = 0; s < shape.sequences; ++s) {
    const int32_t* listed = structure.keep == nullptr ? nullptr : structure.keep + s * shape.keys;
    const int32_t* key_ids = structure.key_ids == nullptr ? listed : structure.key_ids + s * shape.keys;
    const int32_t* query_ids = structure.query_ids != nullptr ? structure.query_ids + s * shape.queries
                               : structure.self_attention     ? listed
                                                              : nullptr;
    const int64_t keys = tokens_of(structure.counts, s, shape.keys);
    const int64_t queries = structure.self_attention ? keys : shape.queries;
    if (keys == 0 || queries == 0) continue;
    STD_TORCH_CHECK(structure.joints > 0, "joint_bias is empty, and there are tokens");
    const Range key(key_ids, keys), query(query_ids, queries);
    const int furthest = structure.offsets / 2;
    STD_TORCH_CHECK(key.least >= 0 && query.least >= 0, "the bias needs ids of at least 0");
    STD_TORCH_CHECK(query.greatest / structure.joints - key.least / structure.joints <= furthest &&
                        key.greatest / structure.joints - query.least / structure.joints <= furthest,
                    "ids of sequence ", s, " lie further apart than the ", furthest,
                    " time patches that bias.times covers");
  }
}

template <class C>
Structure<C> checked_structure(const Arguments& given, const Shape& shape) {
  const Structure<C> structure = structure_of<C, false>(given, shape);
  if (structure.cu_seqlens != nullptr) check_cu_seqlens(structure.cu_seqlens, shape);
  check_keep(shape, structure);
  check_ids(shape, structure);
  return structure;
}

void forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
             const Optional& keep, const Optional& counts, const Optional& cu_seqlens, const Optional& joint_bias,
             const Optional& time_bias, const Optional& query_ids, const Optional& key_ids, const Optional& seed,
             double scale, double dropout, bool self_attention) {
  const Arguments given{q,         k,         keep,    counts, cu_seqlens, joint_bias,    time_bias,
                        query_ids, key_ids,   seed,    scale,  dropout,    self_attention};
  const Shape shape = shape_of(given);
  with_types(q.scalar_type(), [&](auto* storage, auto* compute) {
    using T = std::remove_pointer_t<decltype(storage)>;
    using C = std::remove_pointer_t<decltype(compute)>;
    Forward<T, C> call;
    call.shape = shape;
    call.structure = checked_structure<C>(given, shape);
    const bool packed = cu_seqlens.has_value();
    call.q = rows_of<const T>(q, shape, packed, query_rows(shape, self_attention), "q");
    call.k = rows_of<const T>(k, shape, packed, shape.key_rows, "k");
    call.v = rows_of<const T>(v, shape, packed, shape.key_rows, "v");
    call.out = rows_of<T>(out, shape, packed, shape.queries, "out");
    call.lse = data_of<C>(lse, statistics_of(shape, packed), "lse");
    run(best_kernels(), call, parallel);
  });
}

void backward(const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
              const Tensor& lse, const Tensor& dq, const Tensor& dk, const Tensor& dv, const Optional& columns,
              const Optional& djoint, const Optional& dtime, const Optional& keep, const Optional& counts,
              const Optional& cu_seqlens, const Optional& joint_bias, const Optional& time_bias,
              const Optional& query_ids, const Optional& key_ids, const Optional& seed, double scale, double dropout,
              bool self_attention) {
  const Arguments given{q,         k,       keep, counts, cu_seqlens, joint_bias,    time_bias,
                        query_ids, key_ids, seed, scale,  dropout,    self_attention};
  const Shape shape = shape_of(given);
  with_types(q.scalar_type(), [&](auto* storage, auto* compute) {
    using T = std::remove_pointer_t<decltype(storage)>;
    using C = std::remove_pointer_t<decltype(compute)>;
    Backward<T, C> call;
    call.shape = shape;
    call.structure = checked_structure<C>(given, shape);
    const bool packed = cu_seqlens.has_value();
    const int64_t rows = query_rows(shape, self_attention);
    call.dout = rows_of<const T>(dout, shape, packed, shape.queries, "dout");
    call.q = rows_of<const T>(q, shape, packed, rows, "q");
    call.k = rows_of<const T>(k, shape, packed, shape.key_rows, "k");
    call.v = rows_of<const T>(v, shape, packed, shape.key_rows, "v");
    call.out = rows_of<const T>(out, shape, packed, shape.queries, "out");
    call.lse = data_of<const C>(lse, statistics_of(shape, packed), "lse");
    call.dq = rows_of<T>(dq, shape, packed, rows, "dq");
    call.dk = rows_of<T>(dk, shape, packed, shape.key_rows, "dk");
    call.dv = rows_of<T>(dv, shape, packed, shape.key_rows, "dv");
    add_sums<false>(call, columns, djoint, dtime);
    run(best_kernels(), call, parallel);
  });
}

}  // namespace
}  // namespace fastamr

STABLE_TORCH_LIBRARY_FRAGMENT(fastamr_native, m) {
  FASTAMR_DEFINE_ATTENTION(m, "cpu");
}

STABLE_TORCH_LIBRARY_IMPL(fastamr_native, CPU, m) {
  m.impl("visible_attention_forward_cpu", TORCH_BOX(&fastamr::forward));
  m.impl("visible_attention_backward_cpu", TORCH_BOX(&fastamr::backward));
}
