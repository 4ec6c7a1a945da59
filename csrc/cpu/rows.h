// Between tensors and scratch: rows gathered, converted and scattered.
#pragma once

#include "../visible_attention.h"
#include "products.h"

namespace fastamr {
namespace {

// The rows of one sequence and one head: row i starts at data + row_of(i) * stride.
template <class T>
struct Strip {
  T* data;
  int64_t stride;
  const int32_t* ids;  // rows listed, or null

  FASTAMR_INLINE T* operator[](int64_t i) const { return data + (ids == nullptr ? i : ids[i]) * stride; }
};

template <class T>
FASTAMR_INLINE Strip<T> strip_of(const Rows<T>& rows, int64_t sequence, int64_t head, int64_t first,
                                 const int32_t* ids) {
  return {rows.data + sequence * rows.sequence + first * rows.row + head * rows.head, rows.row, ids};
}

// Rows first .. first + count of a strip, times factor, to scratch rows 0 .. count; zero rows up to `padded`.
template <class C, class T>
FASTAMR_INLINE void gather(const Strip<const T>& from, int64_t first, int count, int padded, int size, C factor,
                           C* to) {
  constexpr int lanes = Lanes<C>::count;
  for (int i = 0; i < count; ++i) {
    const T* row = from[first + i];
    for (int e = 0; e < size; e += lanes) store<C>(to + i * kHeadStride + e, load<C>(row + e) * factor);
  }
  for (int i = count; i < padded; ++i) {
    for (int e = 0; e < size; e += lanes) store<C>(to + i * kHeadStride + e, Vector<C>{});
  }
}

// The inverse for gradients: scratch rows, times factor, to rows first .. first + count. Listed rows were zeroed
// before and are added to, because an id may be listed twice. `columns`, if any, receives the sums over the rows.
template <class C, class T>
FASTAMR_INLINE void scatter(const C* from, int count, int size, C factor, const Strip<T>& to, int64_t first,
                            C* columns) {
  constexpr int lanes = Lanes<C>::count;
  for (int i = 0; i < count; ++i) {
    T* row = to[first + i];
    for (int e = 0; e < size; e += lanes) {
      const Vector<C> value = load<C>(from + i * kHeadStride + e) * factor;
      store<C>(row + e, to.ids == nullptr ? value : load<C>(row + e) + value);
      if (columns != nullptr) store<C>(columns + e, load<C>(columns + e) + value);
    }
  }
}

// Zeros to rows begin .. end, counted in the tensor itself.
template <class C, class T>
FASTAMR_INLINE void clear(const Strip<T>& rows, int64_t begin, int64_t end, int size) {
  constexpr int lanes = Lanes<C>::count;
  for (int64_t i = begin; i < end; ++i) {
    for (int e = 0; e < size; e += lanes) store<C>(rows.data + i * rows.stride + e, Vector<C>{});
  }
}

}  // namespace
}  // namespace fastamr
