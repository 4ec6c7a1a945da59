#include "cuda_case.h"

#include <algorithm>
#include <cstdio>
#include <limits>

namespace fastamr::test {
namespace {

constexpr int kJoints = 5, kDropoutStream = 4;
constexpr double kDropout = 0.3;
constexpr double kPoison = std::numeric_limits<double>::quiet_NaN();

template <class T>
T store(double value) {
  return {static_cast<uint16_t>(gpu::pack<T>(static_cast<float>(value), 0))};
}

double load(float value) { return value; }
template <class T>
double load(T value) {
  return gpu::unpack<T>(value.bits).first;
}

template <class T>
Rows<const T> read_only(const Rows<T>& rows) {
  return {rows.data, rows.sequence, rows.row, rows.head};
}

}  // namespace

template <class T>
Case<T>::Case(const Options& options) : options_(options) {
  make_structure();
  make_views();
  fill_inputs();
  forward_.q = backward_.q = read_only(q_);
  forward_.k = backward_.k = read_only(k_);
  forward_.v = backward_.v = read_only(v_);
  forward_.out = output_;
  forward_.lse = lse_.data();
  backward_.shape = forward_.shape;
  backward_.structure = forward_.structure;
  backward_.out = read_only(output_);
  backward_.dout = read_only(dout_view_);
  backward_.lse = lse_.data();
  backward_.dq = dq_;
  backward_.dk = dk_;
  backward_.dv = dv_;
  backward_.columns = columns_.empty() ? nullptr : columns_.data();
  backward_.joint_gradient = joint_gradient_.empty() ? nullptr : joint_gradient_.data();
  backward_.time_gradient = time_gradient_.empty() ? nullptr : time_gradient_.data();
}

template <class T>
void Case<T>::make_structure() {
  const Options& o = options_;
  Structure<float>& structure = forward_.structure;
  Shape& shape = forward_.shape;
  const int key_rows = o.keep == Keep::none ? o.keys : o.keys + o.keys / 3 + 1;
  shape = {o.sequences, o.heads, o.queries, o.keys, key_rows, o.size};
  structure.self_attention = o.self;
  structure.scale = o.scale != 0 ? o.scale : 1 / std::sqrt(static_cast<float>(o.size));
  for (int s = 0; o.keep != Keep::none && s < o.sequences; ++s) {
    std::vector<int32_t> rows(key_rows);
    for (int i = 0; i < key_rows; ++i) rows[i] = i;
    std::shuffle(rows.begin(), rows.end(), random_);
    rows.resize(o.keys);
    if (o.keep == Keep::ascending) std::sort(rows.begin(), rows.end());
    if (o.keep == Keep::repeated) {
      for (int i = 2; i < o.keys; i += 3) rows[i] = rows[random_() % i];
    }
    keep_.insert(keep_.end(), rows.begin(), rows.end());
  }
  structure.keep = keep_.empty() ? nullptr : keep_.data();
  counts_.assign(o.counts.begin(), o.counts.end());
  structure.counts = counts_.empty() ? nullptr : counts_.data();
  if (!o.lengths.empty()) {
    cu_ = {0};
    for (int length : o.lengths) cu_.push_back(cu_.back() + length);
    structure.cu_seqlens = cu_.data();
    shape.sequences = static_cast<int64_t>(o.lengths.size());
    shape.queries = shape.keys = shape.key_rows = cu_.back();
  }
  if (o.bias) {
    const int patches = (std::max<int>(key_rows, o.queries) + kJoints - 1) / kJoints;
    joint_.resize(o.heads * kJoints * kJoints);
    time_.resize(o.heads * (2 * patches - 1));
    std::normal_distribution<float> normal;
    for (float& x : joint_) x = normal(random_);
    for (float& x : time_) x = normal(random_);
    joint_gradient_.resize(joint_.size());
    time_gradient_.resize(time_.size());
    structure.joint_bias = joint_.data();
    structure.time_bias = time_.data();
    structure.joints = kJoints;
    structure.offsets = 2 * patches - 1;
    if (o.ids) {
      for (int i = 0; i < o.sequences * o.queries; ++i) query_ids_.push_back(random_() % (kJoints * patches));
      for (int i = 0; i < o.sequences * o.keys; ++i) key_ids_.push_back(random_() % (kJoints * patches));
      structure.query_ids = query_ids_.data();
      structure.key_ids = key_ids_.data();
    }
  }
  if (o.dropout) {
    structure.seed = seed_;
    structure.threshold = static_cast<uint32_t>(std::llround(kDropout * 4294967296.0));
    structure.inverse_kept = static_cast<float>(1 / (1 - kDropout));
  }
  if (o.columns) columns_.resize(3 * o.heads * o.size);
}

template <class T>
void Case<T>::make_views() {
  const Shape& shape = forward_.shape;
  const int64_t width = shape.heads * shape.size, sequences = cu_.empty() ? shape.sequences : 1;
  const auto view = [&](std::vector<T>& buffer, int64_t start, int64_t rows, int64_t row,
                        int64_t slot) -> Rows<T> {
    return {buffer.data() + start + slot * width, cu_.empty() ? rows * row : 0, row, shape.size};
  };
  const int64_t slots = options_.larger_buffer ? 10 : 2, layer = options_.larger_buffer ? 6 : 0;
  const int64_t query_numbers = options_.self ? 0 : sequences * shape.queries * width;
  const int64_t key_numbers = sequences * shape.key_rows * (options_.self ? 3 : slots) * width;
  for (std::vector<T>* buffer : {&inputs_, &gradients_}) buffer->resize(query_numbers + key_numbers);
  for (const bool gradient : {false, true}) {
    std::vector<T>& buffer = gradient ? gradients_ : inputs_;
    Rows<T>&q = gradient ? dq_ : q_, &k = gradient ? dk_ : k_, &v = gradient ? dv_ : v_;
    if (options_.self) {
      q = view(buffer, 0, shape.key_rows, 3 * width, 0);
      k = view(buffer, 0, shape.key_rows, 3 * width, 1);
      v = view(buffer, 0, shape.key_rows, 3 * width, 2);
    } else {
      q = view(buffer, 0, shape.queries, width, 0);
      k = view(buffer, query_numbers, shape.key_rows, slots * width, layer);
      v = view(buffer, query_numbers, shape.key_rows, slots * width, layer + 1);
    }
  }
  out_.resize(sequences * shape.queries * width);
  dout_.resize(out_.size());
  output_ = view(out_, 0, shape.queries, width, 0);
  dout_view_ = view(dout_, 0, shape.queries, width, 0);
  lse_.resize(sequences * shape.queries * shape.heads);
}

template <class T>
void Case<T>::fill_inputs() {
  const Shape& shape = forward_.shape;
  std::normal_distribution<double> normal;
  for (T& x : inputs_) x = store<T>(kPoison);
  for (T& x : dout_) x = store<T>(kPoison);
  const auto fill = [&](const Rows<T>& view, std::vector<T>& buffer, int s, int row, double spread) {
    for (int h = 0; h < shape.heads; ++h) {
      for (int e = 0; e < shape.size; ++e)
        buffer[at(view, buffer, s, row, h) + e] = store<T>(spread * normal(random_));
    }
  };
  for (int s = 0; s < shape.sequences; ++s) {
    for (int i = 0; i < tokens(true, s); ++i) {
      fill(q_, inputs_, s, row_of(true, s, i), options_.spread);
      fill(dout_view_, dout_, s, i, 1);
    }
    for (int j = 0; j < tokens(false, s); ++j) {
      fill(k_, inputs_, s, row_of(false, s, j), 1);
      fill(v_, inputs_, s, row_of(false, s, j), 1);
    }
  }
}

template <class T>
int Case<T>::tokens(bool query, int s) const {
  if (!cu_.empty()) return cu_[s + 1] - cu_[s];
  const bool ragged = !counts_.empty() && (!query || options_.self);
  return ragged ? std::min(counts_[s], options_.keys) : query ? options_.queries : options_.keys;
}

template <class T>
int Case<T>::row_of(bool query, int s, int token) const {
  return keep_.empty() || (query && !options_.self) ? token : keep_[s * options_.keys + token];
}

template <class T>
int Case<T>::id_of(bool query, int s, int token) const {
  const std::vector<int32_t>& ids = query ? query_ids_ : key_ids_;
  return ids.empty() ? row_of(query, s, token) : ids[s * (query ? options_.queries : options_.keys) + token];
}

template <class T>
size_t Case<T>::at(const Rows<T>& view, const std::vector<T>& buffer, int s, int row, int h) const {
  return view.data - buffer.data() + s * view.sequence + (first(s) + row) * view.row + h * view.head;
}

template <class T>
oracle::Head Case<T>::solve(int s, int h) const {
  const Structure<float>& structure = forward_.structure;
  oracle::Head head;
  head.queries = tokens(true, s);
  head.keys = tokens(false, s);
  head.size = options_.size;
  head.scale = structure.scale;
  head.inverse_kept = structure.inverse_kept;
  const auto gather = [&](Values& target, const Rows<T>& view, const std::vector<T>& buffer, bool query,
                          bool listed) {
    for (int i = 0; i < tokens(query, s); ++i) {
      const size_t start = at(view, buffer, s, listed ? row_of(query, s, i) : i, h);
      for (int e = 0; e < head.size; ++e) target.push_back(load(buffer[start + e]));
    }
  };
  gather(head.q, q_, inputs_, true, true);
  gather(head.k, k_, inputs_, false, true);
  gather(head.v, v_, inputs_, false, true);
  gather(head.dout, dout_view_, dout_, true, false);
  uint32_t philox_rows = static_cast<uint32_t>(options_.queries);
  if (!cu_.empty()) philox_rows = *std::max_element(options_.lengths.begin(), options_.lengths.end());
  for (int i = 0; i < head.queries; ++i) {
    for (int j = 0; j < head.keys; ++j) {
      if (options_.bias) {
        const int a = id_of(true, s, i), b = id_of(false, s, j), offset = a / kJoints - b / kJoints;
        head.bias.push_back(double{joint_[(h * kJoints + a % kJoints) * kJoints + b % kJoints]} +
                            time_[h * structure.offsets + offset + structure.offsets / 2]);
      }
      if (options_.dropout) {
        const uint32_t row = (s * options_.heads + h) * philox_rows + i;
        head.kept.push_back(oracle::philox_word(seed_, row, j, kDropoutStream) >= structure.threshold);
      }
    }
  }
  head.run();
  return head;
}

template <class T>
void Case<T>::reset() {
  for (std::vector<T>* buffer : {&gradients_, &out_}) {
    for (T& x : *buffer) x = store<T>(kPoison);
  }
  for (std::vector<float>* buffer : {&lse_, &columns_, &joint_gradient_, &time_gradient_, &workspace_}) {
    std::fill(buffer->begin(), buffer->end(), static_cast<float>(kPoison));
  }
  const Shape& shape = forward_.shape;
  for (int s = 0; !keep_.empty() && s < shape.sequences; ++s) {
    for (int64_t row = 0; row < shape.key_rows; ++row) {
      for (const Rows<T>* view : {&dq_, &dk_, &dv_}) {
        if (view == &dq_ && !options_.self) continue;
        for (int h = 0; h < shape.heads; ++h) {
          const auto start = gradients_.begin() + at(*view, gradients_, s, static_cast<int>(row), h);
          std::fill(start, start + shape.size, store<T>(0));
        }
      }
    }
  }
}

template <class T>
float* Case<T>::workspace() {
  workspace_.resize(gpu::PartialSums::of(backward_).total(), static_cast<float>(kPoison));
  return workspace_.data();
}

template <class T>
template <class Buffer>
std::vector<double> Case<T>::values_of(const Buffer& buffer) {
  Values out;
  for (const auto& x : buffer) out.push_back(load(x));
  return out;
}

template <class T>
double Case<T>::compare(const char* name, const Values& expected, const Values& found, bool verbose) const {
  double error = 0, size = 0, largest = 0, count = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::isnan(expected[i]) != std::isnan(found[i])) {
      std::printf("    %s[%zu] is %g, expected %g\n", name, i, found[i], expected[i]);
      return std::numeric_limits<double>::infinity();
    }
    if (std::isnan(expected[i]) || expected[i] == found[i]) continue;
    const double difference = std::abs(expected[i] - found[i]);
    error += difference * difference;
    largest = std::max(largest, difference);
  }
  for (double x : expected) {
    if (std::isfinite(x) && x != 0) size += x * x, ++count;
  }
  const double relative = error == 0 ? 0 : std::sqrt(error / size);
  // One wrong number among many hardly shows in the norm: no number may be off by 16 times the allowed mean.
  const double worst = largest == 0 ? 0 : largest / std::sqrt(size / count) / 16;
  if (verbose) std::printf("    %-8s error %.2e, largest %.2e\n", name, relative, worst * 16);
  return std::max(relative, worst);
}

template <class T>
double Case<T>::error(bool verbose) const {
  const Shape& shape = forward_.shape;
  const Structure<float>& structure = forward_.structure;
  Values out(out_.size(), 0), lse = values_of(lse_), gradients = values_of(gradients_),
                              columns(columns_.size(), 0);
  Values joint(joint_gradient_.size(), 0), time(time_gradient_.size(), 0);
  // Every row of the views must have been written: zero where no token adds to it.
  for (double& x : gradients) x = kPoison;
  const Rows<T>* views[3] = {&dq_, &dk_, &dv_};
  for (int which = 0; which < 3; ++which) {
    const int64_t rows = which == 0 && !options_.self ? shape.queries : shape.key_rows;
    for (int s = 0; s < (cu_.empty() ? shape.sequences : 1); ++s) {
      for (int64_t row = 0; row < rows; ++row) {
        for (int h = 0; h < shape.heads; ++h) {
          const auto start = gradients.begin() + at(*views[which], gradients_, s, static_cast<int>(row), h);
          std::fill(start, start + shape.size, 0.0);
        }
      }
    }
  }
  for (int s = 0; s < shape.sequences; ++s) {
    for (int h = 0; h < shape.heads; ++h) {
      const oracle::Head head = solve(s, h);
      for (int which = 0; which < 3; ++which) {
        const Values& gradient = which == 0 ? head.dq : which == 1 ? head.dk : head.dv;
        for (int i = 0; i < tokens(which == 0, s); ++i) {
          for (int e = 0; e < shape.size; ++e) {
            const double value = gradient[i * shape.size + e];
            gradients[at(*views[which], gradients_, s, row_of(which == 0, s, i), h) + e] += value;
            if (!columns.empty()) columns[(which * shape.heads + h) * shape.size + e] += value;
          }
        }
      }
      for (int i = 0; i < head.queries; ++i) {
        for (int e = 0; e < shape.size; ++e)
          out[at(output_, out_, s, i, h) + e] = head.out[i * shape.size + e];
        const int64_t cell =
            cu_.empty() ? (s * shape.heads + h) * shape.queries + i : (cu_[s] + i) * shape.heads + h;
        lse[cell] = head.lse[i];
        for (int j = 0; options_.bias && j < head.keys; ++j) {
          const int a = id_of(true, s, i), b = id_of(false, s, j);
          joint[(h * kJoints + a % kJoints) * kJoints + b % kJoints] += head.dscores[i * head.keys + j];
          time[h * structure.offsets + a / kJoints - b / kJoints + structure.offsets / 2] +=
              head.dscores[i * head.keys + j];
        }
      }
    }
  }
  double worst = compare("out", out, values_of(out_), verbose);
  worst = std::max(worst, compare("lse", lse, values_of(lse_), verbose));
  worst = std::max(worst, compare("gradient", gradients, values_of(gradients_), verbose));
  worst = std::max(worst, compare("columns", columns, values_of(columns_), verbose));
  worst = std::max(worst, compare("joint", joint, values_of(joint_gradient_), verbose));
  return std::max(worst, compare("time", time, values_of(time_gradient_), verbose));
}

template <class T>
std::vector<uint32_t> Case<T>::bits() const {
  std::vector<uint32_t> out;
  for (const std::vector<T>* buffer : {&out_, &gradients_}) {
    for (T x : *buffer) out.push_back(x.bits);
  }
  for (const std::vector<float>* buffer : {&lse_, &columns_, &joint_gradient_, &time_gradient_}) {
    for (float x : *buffer) {
      uint32_t word;
      std::memcpy(&word, &x, 4);
      out.push_back(word);
    }
  }
  return out;
}

template class Case<gpu::Bfloat16>;
template class Case<gpu::Half>;

}  // namespace fastamr::test
