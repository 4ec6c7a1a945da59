// What the adapters of both devices share: the raw functions' arguments and the sizes that follow from them.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

#include "visible_attention.h"

namespace fastamr {

using torch::stable::Tensor;
using Optional = std::optional<Tensor>;

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
    shape.sequences = given.cu_seqlens->numel() - 1;
    shape.queries = shape.keys = given.q.size(0);
  } else {
    shape.sequences = given.q.size(0);
    shape.keys = given.keep.has_value() ? given.keep->size(1) : shape.key_rows;
    shape.queries = given.self_attention ? shape.keys : given.q.size(1);
  }
  STD_TORCH_CHECK(shape.size == 16 || shape.size == 32 || shape.size == 64,
                  "the head size must be 16, 32 or 64, got ", shape.size);
  STD_TORCH_CHECK(packed || shape.keys <= 256, "at most 256 keys are attended, got ", shape.keys);
  STD_TORCH_CHECK(shape.queries <= INT32_MAX && shape.sequences <= INT32_MAX, "too many rows or sequences");
  return shape;
}

}  // namespace fastamr
