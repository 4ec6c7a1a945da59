#include "launch.h"

namespace fastamr::gpu {

FASTAMR_INSTANTIATE_FORWARD(64)

}  // namespace fastamr::gpu
