// The products on the matrix unit against float64, without Python: every pass at their end, both layouts of a weight,
// every number of parts, shapes that fill no tile. All buffers are exactly as large as the tensors, and every call runs
// on a thread of its own with fresh scratch memory, so that a sanitizer sees a step outside.
//
//     cpu_products unit        on the processor's matrix unit; nothing to do where there is none
//     cpu_products emulated    linked with the code whose unit is emulated; needs AVX-512
#include <algorithm>
#include <cstdio>
#include <limits>
#include <string>

#include "../../csrc/cpu/product_kernels.h"
#include "row_truth.h"

namespace fastamr {
namespace {

struct Shape {
  int64_t rows, inner, columns;
};

template <class T>
void spoil(std::vector<T>& values) {
  for (T& each : values) each = stored<T>(NAN);
}

template <class T>
void append(std::string& bytes, const std::vector<T>& values) {
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// Run a call with 1, 2 and 3 threads; whether the outputs, spoiled before, are the same to the bit.
template <class Call, class... Outputs>
bool repeats(const Call& call, std::vector<Outputs>&... outputs) {
  std::string first;
  for (const auto& parallel : {Parallel(one_thread), Parallel(two_threads), Parallel(three_threads)}) {
    (spoil(outputs), ...);
    std::thread([&] { call(parallel); }).join();
    std::string bytes;
    (append(bytes, outputs), ...);
    if (first.empty()) first = bytes;
    if (bytes != first) return false;
  }
  return true;
}

// x by a weight in float64.
template <class T>
std::vector<double> exact_product(const std::vector<T>& x, const std::vector<T>& weight, const Shape& shape,
                                  bool transposed) {
  const auto [rows, inner, columns] = shape;
  std::vector<double> result(rows * columns), wide(weight.size());
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t i = 0; i < inner; ++i) {
      wide[i * columns + c] = value_of(weight[transposed ? c * inner + i : i * columns + c]);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < inner; ++i) {
      const double value = value_of(x[row * inner + i]);
      for (int64_t c = 0; c < columns; ++c) result[row * columns + c] += value * wide[i * columns + c];
    }
  }
  return result;
}

// One shape, type and number of parts. Every check returns the largest relative error, infinite where the results depend
// on the number of threads.
template <class T>
class Trial {
 public:
  Trial(const ProductFunctions<T>& functions, const Shape& shape, int parts)
      : functions_(functions),
        shape_(shape),
        parts_(parts),
        generator_(static_cast<unsigned>(shape.rows * 7 + shape.inner * 3 + shape.columns)) {
    const double narrow = 1 / std::sqrt(static_cast<double>(shape.inner));
    x_ = random<T>(shape.rows * shape.inner, 0, generator_);
    for (const double each : random<double>(shape.inner * shape.columns, 0, generator_)) {
      weight_.push_back(stored<T>(narrow * each));
    }
    bias_ = random<float>(shape.columns, 0, generator_);
  }

  double everything() {
    double worst = std::max({linear(false, true), linear(true, false), gelu(true), gelu(false), gelu_backward()});
    // The standardised rows of one column are zero, and so is their gradient: nothing to compare with.
    if (shape_.columns > 1) {
      worst = std::max({worst, norm(true), norm(false), norm_backward(true), norm_backward(false)});
    }
    return std::max(worst, weight_gradient());
  }

  double linear(bool transposed, bool with_bias) {
    std::vector<T> out(count());
    Linear<T, float> pass{shape_.rows, shape_.columns, with_bias ? bias_.data() : nullptr, out.data()};
    const auto call = [&](const Parallel& parallel) {
      functions_.linear(product(transposed), pass, nullptr, parallel);
    };
    if (!repeats(call, out)) return INFINITY;
    auto exact = exact_product(x_, weight_, shape_, transposed);
    for (size_t i = 0; i < exact.size() && with_bias; ++i) exact[i] += bias_[i % shape_.columns];
    return distance(out, exact);
  }

  double gelu(bool with_slope) {
    std::vector<T> h(count()), slope(with_slope ? count() : 0);
    T* const wanted = with_slope ? slope.data() : nullptr;
    Gelu<T, float> pass{shape_.rows, shape_.columns, nullptr, bias_.data(), h.data(), wanted};
    const auto call = [&](const Parallel& parallel) { functions_.gelu(product(true), pass, nullptr, parallel); };
    if (!repeats(call, h, slope)) return INFINITY;
    auto u = exact_product(x_, weight_, shape_, true);
    std::vector<double> exact_h, exact_slope;
    for (size_t i = 0; i < u.size(); ++i) {
      u[i] += bias_[i % shape_.columns];
      exact_h.push_back(truth::gelu(u[i]));
      exact_slope.push_back(truth::gelu_slope(u[i]));
    }
    return with_slope ? std::max(distance(h, exact_h), distance(slope, exact_slope)) : distance(h, exact_h);
  }

  double gelu_backward() {
    const auto slope = random<T>(count(), 0.5, generator_);
    std::vector<T> du(count());
    std::vector<float> sums(shape_.columns);
    GeluBackward<T, float> pass{shape_.rows, shape_.columns, nullptr, slope.data(), du.data(), nullptr};
    const auto call = [&](const Parallel& parallel) {
      functions_.gelu_backward(product(false), pass, sums.data(), parallel);
    };
    if (!repeats(call, du, sums)) return INFINITY;
    auto exact = exact_product(x_, weight_, shape_, false);
    std::vector<double> exact_sums(shape_.columns);
    for (size_t i = 0; i < exact.size(); ++i) {
      exact[i] *= value_of(slope[i]);
      exact_sums[i % shape_.columns] += exact[i];
    }
    return std::max(distance(du, exact), distance(sums, exact_sums));
  }

  double norm(bool with_residual) {
    const auto residual = random<T>(count(), 1, generator_);
    const auto gamma = random<float>(shape_.columns, 1, generator_);
    const auto beta = random<float>(shape_.columns, 0, generator_);
    std::vector<T> total(count()), normed(count());
    std::vector<float> mean(shape_.rows), rstd(shape_.rows);
    const T* const added = with_residual ? residual.data() : nullptr;
    Norm<T, float> pass{shape_.rows, shape_.columns, nullptr,      bias_.data(),  added,       gamma.data(),
                        beta.data(), 0.01f,          total.data(), normed.data(), mean.data(), rstd.data()};
    const auto call = [&](const Parallel& parallel) { functions_.norm(product(true), pass, nullptr, parallel); };
    if (!repeats(call, total, normed, mean, rstd)) return INFINITY;
    auto exact = exact_product(x_, weight_, shape_, true);
    for (size_t i = 0; i < exact.size(); ++i) {
      exact[i] += bias_[i % shape_.columns] + (with_residual ? value_of(residual[i]) : 0);
    }
    const truth::RowNorm<T, float> rows(total, gamma, double{0.01f});
    return std::max({distance(total, exact), distance(normed, rows.normed(beta)), distance(rstd, rows.inverse)});
  }

  double norm_backward(bool with_skip) {
    const auto total = random<T>(count(), 1, generator_), skip = random<T>(count(), 0, generator_);
    const auto gamma = random<float>(shape_.columns, 1, generator_);
    const truth::RowNorm<T, float> rows(total, gamma, 0.01);
    std::vector<float> mean, rstd, sums(3 * shape_.columns);
    for (int64_t row = 0; row < shape_.rows; ++row) {
      rstd.push_back(static_cast<float>(rows.inverse[row]));
      mean.push_back(static_cast<float>(value_of(total[row * shape_.columns]) -
                                        rows.standard[row * shape_.columns] / rows.inverse[row]));
    }
    std::vector<T> dx(count());
    const T* const added = with_skip ? skip.data() : nullptr;
    NormBackward<T, float> pass{shape_.rows, shape_.columns, nullptr, total.data(), mean.data(),
                                rstd.data(), gamma.data(),   added,   dx.data(),    nullptr};
    const auto call = [&](const Parallel& parallel) {
      functions_.norm_backward(product(false), pass, sums.data(), parallel);
    };
    if (!repeats(call, dx, sums)) return INFINITY;
    const auto exact = rows.backward(exact_product(x_, weight_, shape_, false), with_skip ? &skip : nullptr);
    return std::max(distance(dx, exact.dx), distance(sums, exact.sums));
  }

  // The columns of x by those of an upstream gradient as wide as the product.
  double weight_gradient() {
    const auto upstream = random<T>(count(), 0, generator_);
    std::vector<float> out(shape_.columns * shape_.inner);
    const WeightGradient<T> given{shape_.rows, shape_.columns, shape_.inner, upstream.data(),
                                  x_.data(),   out.data(),     parts_};
    const auto call = [&](const Parallel& parallel) { functions_.weight_gradient(given, parallel); };
    if (!repeats(call, out)) return INFINITY;
    std::vector<T> across(upstream.size());
    for (int64_t row = 0; row < shape_.rows; ++row) {
      for (int64_t c = 0; c < shape_.columns; ++c) across[c * shape_.rows + row] = upstream[row * shape_.columns + c];
    }
    return distance(out, exact_product(across, x_, {shape_.columns, shape_.rows, shape_.inner}, false));
  }

 private:
  int64_t count() const { return shape_.rows * shape_.columns; }

  Product<T> product(bool transposed) const {
    return {shape_.rows, shape_.inner, shape_.columns, x_.data(), weight_.data(), transposed, parts_};
  }

  const ProductFunctions<T>& functions_;
  Shape shape_;
  int parts_;
  std::mt19937 generator_;
  std::vector<T> x_, weight_;
  std::vector<float> bias_;
};

// Rows: less than half a block, half a block and one more, a block and one more, more than a task takes, more than a
// weight's gradient takes at a time. Inner and columns: around tiles, blocks and the columns that wait for a pass; so many
// that a task of a weight's gradient takes two or four panels.
const Shape kShapes[] = {{1, 1, 1},     {1, 31, 33},  {5, 15, 67},   {5, 67, 15},   {16, 33, 48},   {16, 1, 31},  {17, 48, 31},
                         {17, 15, 1},   {31, 256, 15}, {31, 31, 256}, {33, 33, 33},  {33, 67, 67},   {33, 1, 256}, {33, 48, 48},
                         {600, 67, 31}, {600, 15, 67}, {1100, 31, 15}, {1100, 15, 48}, {5, 3, 1050}, {5, 530, 3}};

template <class T>
bool check(const ProductFunctions<T>& functions, const char* type, int parts, double allowed) {
  bool right = true;
  double worst = 0;
  for (const Shape& shape : kShapes) {
    const double error = Trial<T>(functions, shape, parts).everything();
    worst = std::max(worst, error);
    if (error <= allowed) continue;
    right = false;
    std::printf("WRONG %lld rows, %lld by %lld: error %.3g exceeds %.3g\n", static_cast<long long>(shape.rows),
                static_cast<long long>(shape.inner), static_cast<long long>(shape.columns), error, allowed);
  }
  std::printf("products, %s, parts of 8 bits: %d: relative error %.2g%s\n", type, parts, worst, right ? "" : " WRONG");
  return right;
}

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// What is not finite in one place must reach the numbers that depend on it, and no other; infinity stays infinite.
bool check_special(const ProductFunctions<float>& functions, int parts, float special) {
  const Shape shape{37, 70, 41};
  std::mt19937 generator(3);
  const auto reached = [&](float value) { return std::isnan(special) ? std::isnan(value) : std::isinf(value); };
  const auto x = random<float>(shape.rows * shape.inner, 0, generator);
  const auto weight = random<float>(shape.inner * shape.columns, 0, generator);
  bool right = true;
  const auto multiply = [&](const std::vector<float>& left, const std::vector<float>& factor, bool transposed) {
    std::vector<float> out(shape.rows * shape.columns);
    const Product<float> product{shape.rows,    shape.inner, shape.columns, left.data(),
                                 factor.data(), transposed,  parts};
    functions.linear(product, {shape.rows, shape.columns, nullptr, out.data()}, nullptr, two_threads);
    return out;
  };
  for (const bool transposed : {false, true}) {
    const auto plain = multiply(x, weight, transposed);
    auto spoiled = x, spoiled_weight = weight;
    spoiled[21 * shape.inner + 66] = special;
    spoiled_weight[transposed ? 35 * shape.inner + 33 : 33 * shape.columns + 35] = special;
    const auto row = multiply(spoiled, weight, transposed), column = multiply(x, spoiled_weight, transposed);
    for (int64_t i = 0; i < shape.rows * shape.columns; ++i) {
      right &= i / shape.columns == 21 ? reached(row[i]) : row[i] == plain[i];
      right &= i % shape.columns == 35 ? reached(column[i]) : column[i] == plain[i];
    }
  }
  std::vector<float> out(shape.columns * shape.inner), plain(out.size());
  auto upstream = random<float>(shape.rows * shape.columns, 0, generator);
  const float* const left = upstream.data();
  functions.weight_gradient({shape.rows, shape.columns, shape.inner, left, x.data(), plain.data(), parts}, one_thread);
  upstream[33 * shape.columns + 18] = special;
  functions.weight_gradient({shape.rows, shape.columns, shape.inner, left, x.data(), out.data(), parts}, one_thread);
  for (size_t i = 0; i < out.size(); ++i) {
    right &= i / shape.inner == 18 ? reached(out[i]) : out[i] == plain[i];
  }
  if (!right) std::printf("WRONG %d parts: a number that is not finite (%g) is lost or spreads\n", parts, special);
  return right;
}

// A factor's size does not matter, up to the largest float, with one part to the largest bfloat16 number.
bool check_large(const ProductFunctions<float>& functions, int parts) {
  const int64_t inner = 40;
  std::vector<float> x(inner), weight(inner), out(1);
  double exact = 0;
  for (int64_t i = 0; i < inner; ++i) {
    x[i] = (parts == 1 ? 3.3895e38f : std::numeric_limits<float>::max()) * (1 - 0.01f * static_cast<float>(i));
    weight[i] = 1e-3f * static_cast<float>(i + 1);
    exact += double{x[i]} * weight[i] * 1e-2;
    weight[i] *= 1e-2f;
  }
  const Product<float> product{1, inner, 1, x.data(), weight.data(), true, parts};
  functions.linear(product, {1, 1, nullptr, out.data()}, nullptr, one_thread);
  const double error = std::abs(out[0] / exact - 1), allowed = parts == 1 ? 1e-2 : parts == 2 ? 5e-5 : 1e-6;
  if (error <= allowed) return true;
  std::printf("WRONG %d parts: large numbers, relative error %.3g\n", parts, error);
  return false;
}

// Products without rows, and rows without numbers.
bool check_empty(const ProductFunctions<float>& functions) {
  const std::vector<float> weight(15, 2.0f), bias{1, 2, 3};
  std::vector<float> out(12, NAN), sums(9, NAN), gradient(15, NAN);
  functions.linear({4, 0, 3, nullptr, nullptr, true, 3}, {4, 3, bias.data(), out.data()}, nullptr, two_threads);
  bool right = true;
  for (size_t i = 0; i < out.size(); ++i) right &= out[i] == bias[i % 3];
  NormBackward<float, float> pass;
  pass.columns = 3;
  pass.gamma = bias.data();
  functions.norm_backward({0, 5, 3, nullptr, weight.data(), false, 3}, pass, sums.data(), two_threads);
  for (const float sum : sums) right &= sum == 0;
  functions.weight_gradient({0, 3, 5, nullptr, nullptr, gradient.data(), 3}, two_threads);
  for (const float each : gradient) right &= each == 0;
  if (!right) std::printf("WRONG: products of nothing\n");
  return right;
}

bool check_all(const ProductKernels& kernels) {
  bool right = check(kernels.of_float, "float32", 3, 2e-6);
  right &= check(kernels.of_float, "float32", 2, 4e-5);
  right &= check(kernels.of_float, "float32", 1, 2e-2);
  right &= check(kernels.of_bfloat16, "bfloat16", 1, 4e-3);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const int parts : {1, 2, 3}) {
    // Quiet and signalling NaN, payloads in the upper and in the lower half.
    for (const uint32_t bits : {0x7fc00000u, 0xffc00001u, 0x7f800001u, 0x7fffffffu, 0xffffffffu}) {
      right &= check_special(kernels.of_float, parts, from_bits(bits));
    }
    right &= check_special(kernels.of_float, parts, infinity) && check_special(kernels.of_float, parts, -infinity);
    right &= check_large(kernels.of_float, parts);
  }
  return right && check_empty(kernels.of_float);
}

#if defined(__x86_64__)
// Another library's tiles are as they were, also where they are none of ours.
bool check_tiles_come_back(const ProductKernels& kernels) {
  alignas(64) uint8_t theirs[64] = {1}, after[64] = {}, none[64] = {};
  theirs[16] = 24;  // bytes of a row of the first tile, of which there are 5
  theirs[48] = 5;
  asm volatile("ldtilecfg %0" : : "m"(theirs));
  const std::vector<float> x(40 * 33, 1.0f);
  std::vector<float> out(40 * 40);
  const Product<float> product{40, 33, 40, x.data(), x.data(), true, 3};
  kernels.of_float.linear(product, {40, 40, nullptr, out.data()}, nullptr, one_thread);
  asm volatile("sttilecfg %0" : "=m"(after));
  bool right = std::memcmp(theirs, after, 64) == 0;
  asm volatile("ldtilecfg %0" : : "m"(theirs));
  kernels.of_float.weight_gradient({40, 33, 33, x.data(), x.data(), out.data(), 3}, one_thread);
  asm volatile("sttilecfg %0" : "=m"(after));
  right &= std::memcmp(theirs, after, 64) == 0;
  asm volatile("ldtilecfg %0" : : "m"(none));
  if (!right) std::printf("WRONG: the tiles' configuration did not come back\n");
  return right;
}

bool has_avx512() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

}  // namespace
}  // namespace fastamr

int main(int count, char** words) {
#if defined(__x86_64__)
  const bool emulated = count == 2 && std::string(words[1]) == "emulated";
  if (emulated && fastamr::has_avx512() && fastamr::tile_product_kernels != nullptr) {
    std::printf("the matrix unit, emulated:\n");
    return fastamr::check_all(*fastamr::tile_product_kernels) ? 0 : 1;
  }
  if (!emulated && fastamr::product_kernels() != nullptr) {
    const fastamr::ProductKernels& kernels = *fastamr::product_kernels();
    std::printf("the processor's matrix unit:\n");
    return fastamr::check_all(kernels) & fastamr::check_tiles_come_back(kernels) ? 0 : 1;
  }
  std::printf("products on the matrix unit: skipped, this processor has %s\n", emulated ? "no AVX-512" : "none");
#else
  std::printf("products on the matrix unit: skipped, %s on this processor family\n", count > 1 ? words[1] : "none");
#endif
  return 0;
}
