// Attention in float64, written out loop by loop: what emulated kernels are compared with.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace fastamr::oracle {

using Values = std::vector<double>;

// One sequence and head; rows are tokens that exist.
struct Head {
  int queries = 0, keys = 0, size = 0;
  double scale = 1, inverse_kept = 1;
  Values q, k, v, dout;    // (queries or keys, size)
  Values bias;             // (queries, keys) or empty
  std::vector<bool> kept;  // (queries, keys) or empty

  Values out, lse, dq, dk, dv, dscores;

  void run() {
    out.assign(queries * size, 0);
    lse.assign(queries, -std::numeric_limits<double>::infinity());
    dq.assign(queries * size, 0);
    dk.assign(keys * size, 0);
    dv.assign(keys * size, 0);
    dscores.assign(queries * keys, 0);
    for (int i = 0; i < queries && keys > 0; ++i) run_query(i);
  }

 private:
  static double dot(const double* a, const double* b, int count) {
    double sum = 0;
    for (int e = 0; e < count; ++e) sum += a[e] * b[e];
    return sum;
  }

  double factor(int i, int j) const { return kept.empty() ? 1 : kept[i * keys + j] ? inverse_kept : 0; }

  void run_query(int i) {
    const double *query = &q[i * size], *gradient = &dout[i * size];
    Values weight(keys), dweight(keys);
    double top = -std::numeric_limits<double>::infinity(), total = 0, mean = 0;
    for (int j = 0; j < keys; ++j) {
      weight[j] = scale * dot(query, &k[j * size], size) + (bias.empty() ? 0 : bias[i * keys + j]);
      top = std::max(top, weight[j]);
    }
    for (double& x : weight) total += x = std::exp(x - top);
    lse[i] = top + std::log(total);
    for (int j = 0; j < keys; ++j) {
      weight[j] /= total;
      dweight[j] = factor(i, j) * dot(gradient, &v[j * size], size);
      mean += weight[j] * dweight[j];
    }
    for (int j = 0; j < keys; ++j) {
      const double kept_weight = weight[j] * factor(i, j), dscore = weight[j] * (dweight[j] - mean);
      dscores[i * keys + j] = dscore;
      for (int e = 0; e < size; ++e) {
        out[i * size + e] += kept_weight * v[j * size + e];
        dv[j * size + e] += kept_weight * gradient[e];
        dq[i * size + e] += scale * dscore * k[j * size + e];
        dk[j * size + e] += scale * dscore * query[e];
      }
    }
  }
};

// Philox-4x32-10 with 64-bit products, as in the publication.
struct Words {
  uint32_t word[4];
};

inline Words philox(uint64_t key, Words counter) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter.word[0], b = uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<uint32_t>(b >> 32) ^ counter.word[1] ^ k0, static_cast<uint32_t>(b),
                static_cast<uint32_t>(a >> 32) ^ counter.word[3] ^ k1, static_cast<uint32_t>(a)}};
  }
  return counter;
}

// The word of a row and column of a stream; see fastamr/reference/philox.py.
inline uint32_t philox_word(const int64_t* seed, uint32_t row, uint32_t column, uint32_t stream) {
  const uint64_t counter = static_cast<uint64_t>(seed[1]);
  return philox(static_cast<uint64_t>(seed[0]), {{column / 4, row, static_cast<uint32_t>(counter),
                                                  static_cast<uint32_t>(counter >> 32) ^ stream << 24}})
      .word[column % 4];
}

}  // namespace fastamr::oracle
