// GELU and its slope, u * Phi(u) and Phi(u) + u * phi(u), Phi and phi being the normal distribution.
#pragma once

#include <cmath>

#include "bfloat16.h"
#include "vectors.h"

namespace fastamr {
namespace {

// e^(z^2) erfc(z) for z >= 0 as t * polynomial(t), t = 1 / (1 + p z): no cancellation where Phi is small, and the
// exponential is one that the slope needs anyway. Fitted for 0 <= z <= 9.5, beyond which e^(-z^2) vanishes in float.
// Relative errors 2e-8 for float; 6e-6, far below its rounding, for bfloat16.
template <class T>
struct Tail;

template <>
struct Tail<float> {
  static constexpr float p = 0.3f;
  static constexpr float coefficients[9] = {0.169189614f,   0.170691957f, 0.148482261f,  0.214436965f, -0.0936329015f,
                                            0.546397475f, -0.511228588f, 0.485097494f, -0.129434295f};
  static constexpr int degree = 8;
};

template <>
struct Tail<BFloat16> {
  static constexpr float p = 0.43f;
  static constexpr float coefficients[6] = {0.243257623f,   0.232509655f, 0.281367756f,
                                            -0.0107932835f, 0.40705274f,  -0.153389375f};
  static constexpr int degree = 5;
};

struct GeluValue {
  Vector<float> h, slope;
};

template <class T>
FASTAMR_INLINE GeluValue gelu_of(Vector<float> u) {
  using N = Tail<T>;
  const Vector<float> size = u < 0 ? -u : u;
  const Vector<float> bell = exponential<float>(u * u * -0.5f);
  const Vector<float> t = 1.0f / (size * (N::p * 0.70710678118654752f) + 1.0f);
  Vector<float> power = splat<float>(N::coefficients[N::degree]);
  FASTAMR_UNROLL
  for (int k = N::degree - 1; k >= 0; --k) power = power * t + N::coefficients[k];
  const Vector<float> outer = power * t * bell * 0.5f;  // Phi(-|u|)
  const Vector<float> below = u < 0 ? outer : 1.0f - outer;
  return {u * below, below + u * bell * 0.39894228040143268f};
}

}  // namespace
}  // namespace fastamr
