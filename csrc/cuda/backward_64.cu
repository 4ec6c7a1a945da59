#include "launch.h"

namespace fastamr::gpu {

FASTAMR_INSTANTIATE_BACKWARD(64)

}  // namespace fastamr::gpu
