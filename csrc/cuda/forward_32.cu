#include "launch.h"

namespace fastamr::gpu {

FASTAMR_INSTANTIATE_FORWARD(32)

}  // namespace fastamr::gpu
