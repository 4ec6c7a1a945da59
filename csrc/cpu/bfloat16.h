// bfloat16 as a storage type: the upper half of a float.
#pragma once

#include <cstdint>
#include <type_traits>

namespace fastamr {

struct BFloat16 {
  uint16_t bits;
};

// The part of a table of kernels that is for storage type T.
template <class T, class Table>
const auto& functions_of(const Table& table) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return table.of_bfloat16;
  } else if constexpr (std::is_same_v<T, double>) {
    return table.of_double;
  } else {
    return table.of_float;
  }
}

}  // namespace fastamr
