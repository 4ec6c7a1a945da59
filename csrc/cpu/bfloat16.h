// bfloat16 as a storage type: the upper half of a float.
#pragma once

#include <cstdint>

namespace fastamr {

struct BFloat16 {
  uint16_t bits;
};

}  // namespace fastamr
