#include "launch.h"

namespace fastamr::gpu {

FASTAMR_INSTANTIATE_BACKWARD(16)

}  // namespace fastamr::gpu
