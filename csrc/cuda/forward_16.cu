#include "launch.h"

namespace fastamr::gpu {

FASTAMR_INSTANTIATE_FORWARD(16)

}  // namespace fastamr::gpu
