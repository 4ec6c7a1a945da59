// The CPU kernels as raw torch functions through the stable ABI. Shapes, strides and ids are checked here once more,
// because a wrong one would write outside a tensor; what a user sees is checked in fastamr/ops.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cmath>
#include <cstdint>
#include <optional>

#include "cpu/run.h"
#include "torch_arguments.h"

namespace fastamr {
namespace {

using torch::headeronly::ScalarType;

void parallel(int64_t tasks, const std::function<void(int64_t, int64_t)>& work) {
  torch::stable::parallel_for(0, tasks, 1, work);
}

template <class T>
Rows<T> rows_of(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(tensor.is_cpu(), name, " must be on the CPU");
  const int64_t rank = tensor.dim();
  STD_TORCH_CHECK(rank == 3 || rank == 4, name, " must have 3 or 4 dimensions, got ", rank);
  STD_TORCH_CHECK(tensor.numel() == 0 || tensor.stride(rank - 1) == 1, name, " must be contiguous over its last ",
                  "dimension, got stride ", tensor.stride(rank - 1));
  T* data = static_cast<T*>(const_cast<void*>(tensor.const_data_ptr()));
  return {data, rank == 4 ? tensor.stride(0) : 0, tensor.stride(rank - 3), tensor.stride(rank - 2)};
}

// Data of an optional contiguous tensor of `count` elements and this dtype, or null.
template <class T>
T* data_of(const Optional& tensor, ScalarType type, int64_t count, const char* name) {
  if (!tensor.has_value()) return nullptr;
  STD_TORCH_CHECK(tensor->is_cpu() && tensor->is_contiguous() && tensor->scalar_type() == type &&
                      tensor->numel() == count,
                  name, " must be a contiguous CPU tensor of ", count, " elements of the expected dtype");
  return static_cast<T*>(const_cast<void*>(tensor->const_data_ptr()));
}

void check_cu_seqlens(const int32_t* cu_seqlens, const Shape& shape) {
  STD_TORCH_CHECK(shape.sequences >= 0 && cu_seqlens[0] == 0 && cu_seqlens[shape.sequences] == shape.queries,
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
Structure<C> structure_of(const Arguments& given, const Shape& shape) {
  const ScalarType compute = sizeof(C) == 8 ? ScalarType::Double : ScalarType::Float;
  Structure<C> structure;
  structure.self_attention = given.self_attention;
  const int64_t sequences = shape.sequences;
  structure.keep = data_of<int32_t>(given.keep, ScalarType::Int, sequences * shape.keys, "keep");
  structure.counts = data_of<int32_t>(given.counts, ScalarType::Int, sequences, "counts");
  structure.cu_seqlens = data_of<int32_t>(given.cu_seqlens, ScalarType::Int, sequences + 1, "cu_seqlens");
  if (given.joint_bias.has_value()) {
    STD_TORCH_CHECK(given.time_bias.has_value() && given.joint_bias->dim() == 3 && given.time_bias->dim() == 2,
                    "joint_bias (H, V, V) needs time_bias (H, R)");
    structure.joints = static_cast<int>(given.joint_bias->size(1));
    structure.offsets = static_cast<int>(given.time_bias->size(1));
    const int64_t pairs = int64_t{structure.joints} * structure.joints;
    structure.joint_bias = data_of<C>(given.joint_bias, compute, shape.heads * pairs, "joint_bias");
    structure.time_bias = data_of<C>(given.time_bias, compute, shape.heads * structure.offsets, "time_bias");
    structure.query_ids = data_of<int32_t>(given.query_ids, ScalarType::Int, sequences * shape.queries, "query_ids");
    structure.key_ids = data_of<int32_t>(given.key_ids, ScalarType::Int, sequences * shape.keys, "key_ids");
  }
  if (given.dropout > 0) {
    structure.seed = data_of<int64_t>(given.seed, ScalarType::Long, 2, "seed");
    STD_TORCH_CHECK(structure.seed != nullptr, "dropout needs a seed");
    structure.threshold = static_cast<uint32_t>(std::nearbyint(given.dropout * 4294967296.0));
    structure.inverse_kept = static_cast<C>(1 / (1 - given.dropout));
  }
  structure.scale = static_cast<C>(given.scale);
  if (structure.cu_seqlens != nullptr) check_cu_seqlens(structure.cu_seqlens, shape);
  check_keep(shape, structure);
  check_ids(shape, structure);
  return structure;
}

// Call function(T, C) with the storage and the compute type of a dtype, as null pointers.
template <class Function>
void with_types(ScalarType type, const Function& function) {
  switch (type) {
    case ScalarType::Float:
      return function(static_cast<float*>(nullptr), static_cast<float*>(nullptr));
    case ScalarType::BFloat16:
      return function(static_cast<BFloat16*>(nullptr), static_cast<float*>(nullptr));
    case ScalarType::Double:
      return function(static_cast<double*>(nullptr), static_cast<double*>(nullptr));
    default:
      STD_TORCH_CHECK(false, "the CPU kernel covers float32, bfloat16 and float64");
  }
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
    call.structure = structure_of<C>(given, shape);
    call.q = rows_of<const T>(q, "q");
    call.k = rows_of<const T>(k, "k");
    call.v = rows_of<const T>(v, "v");
    call.out = rows_of<T>(out, "out");
    call.lse = static_cast<C*>(lse.mutable_data_ptr());
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
    const ScalarType type = sizeof(C) == 8 ? ScalarType::Double : ScalarType::Float;
    Backward<T, C> call;
    call.shape = shape;
    call.structure = structure_of<C>(given, shape);
    call.dout = rows_of<const T>(dout, "dout");
    call.q = rows_of<const T>(q, "q");
    call.k = rows_of<const T>(k, "k");
    call.v = rows_of<const T>(v, "v");
    call.out = rows_of<const T>(out, "out");
    call.lse = static_cast<const C*>(lse.const_data_ptr());
    call.dq = rows_of<T>(dq, "dq");
    call.dk = rows_of<T>(dk, "dk");
    call.dv = rows_of<T>(dv, "dv");
    call.columns = data_of<C>(columns, type, 3 * shape.heads * shape.size, "columns");
    const auto& structure = call.structure;
    const int64_t pairs = int64_t{structure.joints} * structure.joints;
    call.joint_gradient = data_of<C>(djoint, type, shape.heads * pairs, "djoint");
    call.time_gradient = data_of<C>(dtime, type, shape.heads * structure.offsets, "dtime");
    STD_TORCH_CHECK((call.joint_gradient == nullptr) == (call.time_gradient == nullptr),
                    "djoint and dtime come together");
    run(best_kernels(), call, parallel);
  });
}

}  // namespace
}  // namespace fastamr

STABLE_TORCH_LIBRARY_FRAGMENT(fastamr_native, m) {
  m.def(
      "visible_attention_forward_cpu(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!) lse, Tensor? keep, "
      "Tensor? counts, Tensor? cu_seqlens, Tensor? joint_bias, Tensor? time_bias, Tensor? query_ids, Tensor? key_ids, "
      "Tensor? seed, float scale, float dropout, bool self_attention) -> ()");
  m.def(
      "visible_attention_backward_cpu(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
      "Tensor(a!) dq, Tensor(b!) dk, Tensor(c!) dv, Tensor(d!)? columns, Tensor(e!)? djoint, Tensor(f!)? dtime, "
      "Tensor? keep, Tensor? counts, Tensor? cu_seqlens, Tensor? joint_bias, Tensor? time_bias, Tensor? query_ids, "
      "Tensor? key_ids, Tensor? seed, float scale, float dropout, bool self_attention) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastamr_native, CPU, m) {
  m.impl("visible_attention_forward_cpu", TORCH_BOX(&fastamr::forward));
  m.impl("visible_attention_backward_cpu", TORCH_BOX(&fastamr::backward));
}
