// A call of attention in host memory: inputs, poisoned outputs, and the comparison with float64.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "attention_oracle.h"
#include "plan.h"

namespace fastamr::test {

enum class Keep { none, ascending, shuffled, repeated };

struct Options {
  std::string name;
  int size = 32, queries = 75, keys = 75;
  int sequences = 1, heads = 2;
  bool self = true;
  Keep keep = Keep::none;
  std::vector<int> counts, lengths;  // lengths: cu_seqlens
  bool bias = false, ids = false, dropout = false, columns = false;
  float scale = 0;             // 0: 1 / sqrt(size)
  float spread = 1;            // standard deviation of q
  bool larger_buffer = false;  // k and v are a slice of the keys and values of five layers
};

// Inputs that must not be read are NaN; outputs start as NaN and must stay so where nothing is to be written.
template <class T>
class Case {
 public:
  explicit Case(const Options& options);

  const Forward<T, float>& forward() const { return forward_; }
  const Backward<T, float>& backward() const { return backward_; }
  float* workspace();

  // Poisons what the kernels write, and clears what a caller of the backward has to clear.
  void reset();
  // Largest error of all results relative to their size; infinite where something is not as poisoned or as
  // finite as it must be. Prints each if `verbose`.
  double error(bool verbose) const;
  // All results, to compare two runs bit by bit.
  std::vector<uint32_t> bits() const;

 private:
  using Values = std::vector<double>;

  void make_structure();
  void make_views();
  void fill_inputs();
  bool exists(bool query, int s, int token) const;
  int tokens(bool query, int s) const;             // that exist
  int row_of(bool query, int s, int token) const;  // in q or in k and v
  int id_of(bool query, int s, int token) const;
  int64_t first(int s) const { return cu_.empty() ? 0 : cu_[s]; }
  oracle::Head solve(int s, int h) const;
  size_t at(const Rows<T>& view, const std::vector<T>& buffer, int s, int row, int h) const;
  double compare(const char* name, const Values& expected, const Values& found, bool verbose) const;
  template <class Buffer>
  static Values values_of(const Buffer& buffer);

  const Options options_;
  std::mt19937 random_{7};
  Forward<T, float> forward_;
  Backward<T, float> backward_;
  std::vector<T> inputs_, gradients_, out_, dout_;
  Rows<T> q_, k_, v_, dq_, dk_, dv_, output_, dout_view_;
  std::vector<float> lse_, joint_, time_, columns_, joint_gradient_, time_gradient_, workspace_;
  std::vector<int32_t> keep_, counts_, cu_, query_ids_, key_ids_;
  int64_t seed_[2] = {0x0123456789ABCDEF, 0x3456789A};
};

}  // namespace fastamr::test
