// What the tests of the CPU's kernels share: numbers of every storage type, random ones, distances, and threads.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "../../csrc/cpu/bfloat16.h"

namespace fastamr {

template <class T>
double value_of(T x) {
  return x;
}
inline double value_of(BFloat16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// The nearest number of type T, ties to even.
template <class T>
T stored(double x) {
  return static_cast<T>(x);
}
template <>
inline BFloat16 stored<BFloat16>(double x) {
  const float value = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

using Ranges = std::function<void(int64_t, int64_t)>;

inline void one_thread(int64_t tasks, const Ranges& work) {
  if (tasks > 0) work(0, tasks);
}

// Two threads, each with every other range: results must not depend on who computes what.
inline void two_threads(int64_t tasks, const Ranges& work) {
  const auto half = [&](int64_t first) {
    for (int64_t task = first; task < tasks; task += 2) work(task, task + 1);
  };
  std::thread other(half, 1);
  half(0);
  other.join();
}

// Three threads, each with a third of the tasks.
inline void three_threads(int64_t tasks, const Ranges& work) {
  std::vector<std::thread> all;
  for (int64_t i = 0; i < 3; ++i) {
    const int64_t begin = tasks * i / 3, end = tasks * (i + 1) / 3;
    if (begin < end) all.emplace_back([&work, begin, end] { work(begin, end); });
  }
  for (std::thread& each : all) each.join();
}

template <class T>
std::vector<T> random(int64_t count, double shift, std::mt19937& generator) {
  std::normal_distribution<double> normal(shift, 1);
  std::vector<T> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(stored<T>(normal(generator)));
  return values;
}

// |found - truth| / |truth| over all numbers.
template <class T>
double distance(const std::vector<T>& found, const std::vector<double>& truth) {
  double away = 0, size = 1e-300;
  for (size_t i = 0; i < truth.size(); ++i) {
    away += (value_of(found[i]) - truth[i]) * (value_of(found[i]) - truth[i]);
    size += truth[i] * truth[i];
  }
  return std::isfinite(away) && found.size() == truth.size() ? std::sqrt(away / size) : 1e9;
}

}  // namespace fastamr
