// The vectorised exponential of the CPU kernels against the C library's in long double, for the instruction set that
// this file is compiled for.
#include <cmath>
#include <cstdio>
#include <limits>

#include "../../csrc/cpu/vectors.h"

namespace fastamr {
namespace {

template <class C>
C one(C x) {
  return exponential<C>(splat<C>(x))[0];
}

// Largest error in units of the last place over evenly spaced arguments.
template <class C>
double worst_error(C from, C to, int steps) {
  double worst = 0;
  for (int i = 0; i <= steps; ++i) {
    const C x = from + (to - from) * static_cast<C>(i) / static_cast<C>(steps);
    const long double truth = std::exp(static_cast<long double>(x));
    const C near = static_cast<C>(truth), unit = std::nextafter(near, std::numeric_limits<C>::infinity()) - near;
    const double error = static_cast<double>(std::fabs((one<C>(x) - truth) / unit));
    worst = error > worst ? error : worst;
  }
  return worst;
}

template <class C>
bool check(const char* type, C lowest) {
  const double wide = worst_error<C>(lowest, 0, 500000), narrow = worst_error<C>(-2, 2, 500000);
  const C infinity = std::numeric_limits<C>::infinity();
  const bool ends = one<C>(-infinity) == 0 && one<C>(-1e4f) == 0 && one<C>(2 * lowest) == 0 && one<C>(0) == 1 &&
                    std::isnan(one<C>(std::numeric_limits<C>::quiet_NaN()));
  const bool right = wide <= 2 && narrow <= 2 && ends;
  std::printf("exponential of %s with %d lanes: %.2f ulp%s\n", type, Lanes<C>::count, wide > narrow ? wide : narrow,
              right ? "" : " WRONG");
  return right;
}

}  // namespace
}  // namespace fastamr

int main() {
  return fastamr::check<float>("float32", -87.3f) & fastamr::check<double>("float64", -708.3) ? 0 : 1;
}
