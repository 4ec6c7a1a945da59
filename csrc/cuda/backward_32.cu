#include "launch.h"

namespace fastamr::gpu {

FASTAMR_INSTANTIATE_BACKWARD(32)

}  // namespace fastamr::gpu
