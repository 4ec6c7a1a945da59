// The CPU kernels against attention in float64, without Python: every instruction set that this processor has, every
// storage type, every option. All buffers are exactly as large as the tensors, so that a sanitizer sees a step outside.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>

#include "../../csrc/cpu/run.h"
#include "attention_oracle.h"
#include "cpu_testing.h"

namespace fastamr {
namespace {

struct Case {
  std::string name;
  bool self_attention;
  int sequences, queries, keys, heads, size;
  bool keep = false, repeats = false, counts = false, packed = false, bias = false, dropout = false;
};

// What a result must be; elements that no token contributes to must be exactly zero.
struct Expected {
  explicit Expected(size_t count) : values(count), present(count) {}

  void add(int64_t index, double value) {
    values[index] += value;
    present[index] = true;
  }

  void add_row(int64_t start, const std::vector<double>& from, int row, int size) {
    for (int e = 0; e < size; ++e) add(start + e, from[row * size + e]);
  }

  std::vector<double> values;
  std::vector<bool> present;
};

template <class T, class C>
class Trial {
 public:
  explicit Trial(const Case& given) : given_(given), random_(7) { make(); }

  // Largest error relative to the largest value, over the output and all gradients.
  double run(const Kernels& kernels) {
    launch(kernels, one_thread);
    const auto first = everything();
    launch(kernels, two_threads);
    if (everything() != first) return INFINITY;
    compare();
    return worst_;
  }

 private:
  using Values = std::vector<double>;

  double draw() { return std::normal_distribution<double>()(random_); }
  int draw_below(int bound) { return static_cast<int>(random_() % static_cast<unsigned>(bound)); }

  std::vector<T> filled(int64_t count) {
    std::vector<T> values(count);
    for (T& x : values) x = stored<T>(draw());
    return values;
  }

  void make() {
    lengths_.assign(given_.sequences, given_.keys);
    const bool ragged = given_.counts || given_.packed;
    for (int s = 0; ragged && s < given_.sequences; ++s) lengths_[s] = s == 1 ? 0 : 1 + draw_below(given_.keys);
    offsets_.push_back(0);
    for (int length : lengths_) offsets_.push_back(offsets_.back() + length);
    key_rows_ = given_.packed ? offsets_.back() : given_.keys + (given_.keep ? 5 : 0);
    query_rows_ = given_.self_attention ? key_rows_ : given_.queries;
    out_rows_ = given_.packed ? key_rows_ : given_.self_attention ? given_.keys : given_.queries;
    outer_ = given_.packed ? 1 : given_.sequences;
    const int64_t width = given_.heads * given_.size;
    q_ = filled(outer_ * query_rows_ * width);
    k_ = filled(outer_ * key_rows_ * width);
    v_ = filled(outer_ * key_rows_ * width);
    dout_ = filled(outer_ * out_rows_ * width);
    if (given_.keep) make_keep();
    joints_ = given_.bias ? 3 : 0;
    times_ = given_.bias ? 2 * (key_rows_ / 3 + given_.queries / 3 + 1) + 1 : 0;
    for (int i = 0; i < given_.heads * joints_ * joints_; ++i) joint_bias_.push_back(static_cast<C>(draw()));
    for (int i = 0; i < given_.heads * times_; ++i) time_bias_.push_back(static_cast<C>(draw()));
  }

  void make_keep() {
    for (int s = 0; s < given_.sequences; ++s) {
      std::vector<int32_t> all(key_rows_);
      for (int i = 0; i < key_rows_; ++i) all[i] = i;
      std::shuffle(all.begin(), all.end(), random_);
      keep_.insert(keep_.end(), all.begin(), all.begin() + given_.keys);
      if (given_.repeats) keep_.back() = keep_[keep_.size() - given_.keys];
    }
  }

  template <class U>
  Rows<U> view(std::vector<std::remove_const_t<U>>& values, int64_t rows) const {
    const int64_t width = given_.heads * given_.size;
    return {values.data(), given_.packed ? 0 : rows * width, width, given_.size};
  }

  Structure<C> structure() const {
    Structure<C> structure;
    structure.self_attention = given_.self_attention;
    structure.keep = given_.keep ? keep_.data() : nullptr;
    structure.counts = given_.counts ? lengths_.data() : nullptr;
    structure.cu_seqlens = given_.packed ? offsets_.data() : nullptr;
    if (given_.bias) {
      structure.joint_bias = joint_bias_.data();
      structure.time_bias = time_bias_.data();
      structure.joints = joints_;
      structure.offsets = times_;
    }
    if (given_.dropout) {
      structure.seed = seed_;
      structure.threshold = 1u << 30;
      structure.inverse_kept = static_cast<C>(4.0 / 3.0);
    }
    structure.scale = static_cast<C>(0.25);
    return structure;
  }

  template <class Parallel>
  void launch(const Kernels& kernels, const Parallel& parallel) {
    const int64_t width = given_.heads * given_.size;
    Forward<T, C> forward;
    forward.shape = {given_.sequences, given_.heads, out_rows_, given_.packed ? key_rows_ : given_.keys, key_rows_,
                     given_.size};
    forward.structure = structure();
    forward.q = view<const T>(q_, query_rows_);
    forward.k = view<const T>(k_, key_rows_);
    forward.v = view<const T>(v_, key_rows_);
    out_.assign(outer_ * out_rows_ * width, stored<T>(NAN));
    lse_.assign(outer_ * out_rows_ * given_.heads, static_cast<C>(NAN));
    forward.out = view<T>(out_, out_rows_);
    forward.lse = lse_.data();
    fastamr::run(kernels, forward, parallel);

    dq_.assign(q_.size(), stored<T>(NAN));
    dk_.assign(k_.size(), stored<T>(NAN));
    dv_.assign(v_.size(), stored<T>(NAN));
    columns_.assign(3 * width, static_cast<C>(NAN));
    djoint_.assign(joint_bias_.size(), static_cast<C>(NAN));
    dtime_.assign(time_bias_.size(), static_cast<C>(NAN));
    Backward<T, C> backward;
    backward.shape = forward.shape;
    backward.structure = forward.structure;
    backward.dout = view<const T>(dout_, out_rows_);
    backward.q = forward.q;
    backward.k = forward.k;
    backward.v = forward.v;
    backward.out = view<const T>(out_, out_rows_);
    backward.lse = lse_.data();
    backward.dq = view<T>(dq_, query_rows_);
    backward.dk = view<T>(dk_, key_rows_);
    backward.dv = view<T>(dv_, key_rows_);
    backward.columns = columns_.data();
    if (given_.bias) {
      backward.joint_gradient = djoint_.data();
      backward.time_gradient = dtime_.data();
    }
    fastamr::run(kernels, backward, parallel);
  }

  // All results as bytes.
  std::string everything() const {
    std::string bytes;
    const auto append = [&](const auto& values) {
      bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0]));
    };
    append(out_), append(lse_), append(dq_), append(dk_), append(dv_), append(columns_), append(djoint_), append(dtime_);
    return bytes;
  }

  int64_t place(int s, int row, int rows, int h) const {
    const int64_t whole = given_.packed ? offsets_[s] + row : int64_t{s} * rows + row;
    return (whole * given_.heads + h) * given_.size;
  }

  int row_of(int s, int j) const { return given_.keep ? keep_[s * given_.keys + j] : j; }

  void copy(Values& to, const std::vector<T>& from, int64_t start) {
    for (int e = 0; e < given_.size; ++e) to.push_back(value_of(from[start + e]));
  }

  // Query i and key j of a sequence as rows of the head's tensors, and their entries in the bias tables.
  int query_row(int s, int i) const { return given_.self_attention ? row_of(s, i) : i; }
  int64_t joint_place(int s, int h, int i, int j) const {
    return (int64_t{h} * joints_ + query_row(s, i) % joints_) * joints_ + row_of(s, j) % joints_;
  }
  int64_t time_place(int s, int h, int i, int j) const {
    return int64_t{h} * times_ + query_row(s, i) / joints_ - row_of(s, j) / joints_ + times_ / 2;
  }

  oracle::Head exact(int s, int h) {
    oracle::Head head;
    head.keys = lengths_[s];
    head.queries = given_.self_attention ? head.keys : given_.queries;
    head.size = given_.size;
    head.scale = 0.25;
    head.inverse_kept = 4.0 / 3.0;
    for (int i = 0; i < head.queries; ++i) {
      copy(head.q, q_, place(s, query_row(s, i), query_rows_, h));
      copy(head.dout, dout_, place(s, i, out_rows_, h));
    }
    for (int j = 0; j < head.keys; ++j) {
      copy(head.k, k_, place(s, row_of(s, j), key_rows_, h));
      copy(head.v, v_, place(s, row_of(s, j), key_rows_, h));
    }
    const int longest = given_.packed ? *std::max_element(lengths_.begin(), lengths_.end()) : out_rows_;
    for (int i = 0; i < head.queries; ++i) {
      for (int j = 0; j < head.keys; ++j) {
        if (given_.bias) {
          head.bias.push_back(double{joint_bias_[joint_place(s, h, i, j)]} + time_bias_[time_place(s, h, i, j)]);
        }
        const uint32_t row = static_cast<uint32_t>((s * given_.heads + h) * longest + i);
        if (given_.dropout) head.kept.push_back(oracle::philox_word(seed_, row, j, 4) >= 1u << 30);
      }
    }
    head.run();
    return head;
  }

  void compare() {
    Expected out(out_.size()), dq(dq_.size()), dk(dk_.size()), dv(dv_.size()), columns(columns_.size());
    Expected djoint(djoint_.size()), dtime(dtime_.size());
    const int size = given_.size;
    for (int s = 0; s < given_.sequences; ++s) {
      for (int h = 0; h < given_.heads; ++h) {
        const oracle::Head head = exact(s, h);
        for (int i = 0; i < head.queries; ++i) {
          out.add_row(place(s, i, out_rows_, h), head.out, i, size);
          dq.add_row(place(s, query_row(s, i), query_rows_, h), head.dq, i, size);
          columns.add_row(h * size, head.dq, i, size);
          for (int j = 0; j < head.keys && given_.bias; ++j) {
            djoint.add(joint_place(s, h, i, j), head.dscores[i * head.keys + j]);
            dtime.add(time_place(s, h, i, j), head.dscores[i * head.keys + j]);
          }
        }
        for (int j = 0; j < head.keys; ++j) {
          dk.add_row(place(s, row_of(s, j), key_rows_, h), head.dk, j, size);
          dv.add_row(place(s, row_of(s, j), key_rows_, h), head.dv, j, size);
          columns.add_row((given_.heads + h) * size, head.dk, j, size);
          columns.add_row((2 * given_.heads + h) * size, head.dv, j, size);
        }
      }
    }
    worst_ = 0;
    check(out_, out), check(dq_, dq), check(dk_, dk), check(dv_, dv);
    check(columns_, columns), check(djoint_, djoint), check(dtime_, dtime);
  }

  template <class U>
  void check(const std::vector<U>& found, const Expected& expected) {
    double largest = 1e-3;
    for (double x : expected.values) largest = std::max(largest, std::fabs(x));
    for (size_t i = 0; i < found.size(); ++i) {
      const double error = std::fabs(value_of(found[i]) - expected.values[i]) / largest;
      const bool spoiled = !std::isfinite(error) || (!expected.present[i] && value_of(found[i]) != 0);
      worst_ = spoiled ? INFINITY : std::max(error, worst_);
    }
  }

  Case given_;
  std::mt19937 random_;
  int key_rows_ = 0, query_rows_ = 0, out_rows_ = 0, outer_ = 0, joints_ = 0, times_ = 0;
  std::vector<int32_t> lengths_, offsets_, keep_;
  std::vector<T> q_, k_, v_, dout_, out_, dq_, dk_, dv_;
  std::vector<C> joint_bias_, time_bias_, lse_, columns_, djoint_, dtime_;
  int64_t seed_[2] = {11, (int64_t{3} << 32) + 5};
  double worst_ = 0;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (int size : {16, 32, 64}) {
    for (int keys : {1, 15, 16, 17, 75, 256}) all.push_back({"self", true, 2, keys, keys, 2, size});
    all.push_back({"cross", false, 2, 125, 75, 2, size});
    all.push_back({"cross, two chunks and one row", false, 1, 193, 31, 1, size});
    all.push_back({"keep", true, 3, 21, 21, 2, size, true});
    all.push_back({"keep with a repeated id", true, 3, 21, 21, 2, size, true, true});
    all.push_back({"cross, keep", false, 3, 14, 21, 2, size, true, true});
    all.push_back({"counts", true, 5, 21, 21, 2, size, false, false, true});
    all.push_back({"cross, counts", false, 5, 14, 21, 2, size, false, false, true});
    all.push_back({"cu_seqlens", true, 5, 21, 21, 2, size, false, false, false, true});
    all.push_back({"cu_seqlens, dropout", true, 5, 21, 21, 2, size, false, false, false, true, false, true});
    all.push_back({"bias", true, 3, 21, 21, 2, size, false, false, false, false, true});
    all.push_back({"dropout", false, 3, 14, 21, 2, size, false, false, false, false, false, true});
    all.push_back({"all options", true, 70, 9, 9, 2, size, true, false, true, false, true, true});
    all.push_back({"all options, cross", false, 5, 14, 21, 2, size, true, false, true, false, true, true});
  }
  all.push_back({"no sequence", true, 0, 9, 9, 2, 16});
  return all;
}

template <class T, class C>
bool run_cases(const Kernels& kernels, const char* type, double allowed) {
  bool right = true;
  for (const Case& each : cases()) {
    const double error = Trial<T, C>(each).run(kernels);
    if (!(error <= allowed)) {
      std::printf("WRONG %s %s %s, %d keys, size %d: error %.3g exceeds %.3g\n", kernels.name, type, each.name.c_str(),
                  each.keys, each.size, error, allowed);
      right = false;
    }
  }
  return right;
}

bool run_kernels(const Kernels& kernels) {
  const bool right = run_cases<float, float>(kernels, "float32", 3e-6) &
                     run_cases<BFloat16, float>(kernels, "bfloat16", 1.2e-2) &
                     run_cases<double, double>(kernels, "float64", 5e-15);
  std::printf("%s: %zu cases of 3 types %s\n", kernels.name, cases().size(), right ? "agree with float64" : "WRONG");
  return right;
}

}  // namespace
}  // namespace fastamr

int main() {
  bool right = fastamr::run_kernels(fastamr::kernels_baseline);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    right &= fastamr::run_kernels(fastamr::kernels_avx2);
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    right &= fastamr::run_kernels(fastamr::kernels_avx512);
  }
#endif
  return right ? 0 : 1;
}
