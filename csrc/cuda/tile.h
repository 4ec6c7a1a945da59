// Panels of rows in shared memory, the fragments of `mma.sync.m16n8k16`, and tiles sent to global memory.
//
// A warp's lane l belongs to quad l / 4 (`row` below, 0..7) at place l % 4 (`place`). An accumulator tile of
// 16 x 8 gives a lane the columns 2*place and 2*place + 1 of rows `row` (elements 0, 1) and `row + 8`
// (elements 2, 3).
#pragma once

#include "primitives.h"

namespace fastamr::gpu {

struct Lane {
  int warp, warps, lane, row, place;

  FASTAMR_DEVICE static Lane here() {
    const int thread = thread_index();
    const int lane = thread & 31;
    return {uniform(thread >> 5), thread_count() >> 5, lane, lane >> 2, lane & 3};
  }
};

FASTAMR_HOST_DEVICE int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// A panel holds rows of E 16-bit numbers as 16-byte chunks. The chunks of a row change places with the row
// such that eight rows of one chunk (ldmatrix) and neighbouring rows side by side (row_words) both fall into
// distinct banks. The pattern repeats every 8 rows: chunk_offset(8*n + r, c) = 8*n*row_bytes +
// chunk_offset(r, c).
template <int E>
struct Panel {
  static constexpr int chunks = E / 8;
  static constexpr int row_bytes = 2 * E;
  static constexpr int rows_per_line = 8 / chunks;

  FASTAMR_DEVICE static uint32_t chunk_offset(int row, int chunk) {
    return row * row_bytes + ((chunk ^ (row / rows_per_line % chunks)) << 4);
  }

  // What a lane adds to the offset of 8 rows to read its words of row `lane.row`.
  FASTAMR_DEVICE static uint32_t words_offset(Lane lane) {
    if constexpr (E == 16) {
      return chunk_offset(lane.row, lane.place >> 1) + (lane.place & 1) * 8;
    } else {
      return chunk_offset(lane.row, lane.place * (E / 32));
    }
  }

  // What a lane adds to the offset of 16 rows to name its row for load_matrices_transposed: chunk `pair * 2`
  // in the first 16 lanes, the next one in the others. Both lie in separate bits, so XOR selects the pair.
  FASTAMR_DEVICE static uint32_t matrices_offset(Lane lane) {
    return chunk_offset(lane.lane & 15, lane.lane >> 4);
  }
};

// The chunks of a panel that one thread moves: always the same of a row, as CTAs are multiples of 8 threads.
template <int E>
struct ChunkWalk {
  int row, chunk, step;
  uint32_t offset;  // in the panel

  FASTAMR_DEVICE static ChunkWalk start() {
    const unsigned thread = static_cast<unsigned>(thread_index()),
                   threads = static_cast<unsigned>(thread_count());
    constexpr unsigned chunks = Panel<E>::chunks;
    ChunkWalk walk = {static_cast<int>(thread / chunks), static_cast<int>(thread % chunks),
                      static_cast<int>(threads / chunks), 0};
    walk.offset = Panel<E>::chunk_offset(walk.row, walk.chunk);
    return walk;
  }

  FASTAMR_DEVICE void next() {
    row += step;
    // Up to E = 32 a warp holds a multiple of 8 rows, after which the pattern repeats.
    offset = E <= 32 ? offset + step * Panel<E>::row_bytes : Panel<E>::chunk_offset(row, chunk);
  }
};

// A lane's share of a row when it is contracted over E: place p owns the E/4 consecutive numbers from p *
// E/4. This is not the order of the instruction, but the same permutation in both operands, and it makes the
// share contiguous.
template <int E>
struct RowWords {
  uint32_t word[E / 8];
};

template <int E>
FASTAMR_DEVICE RowWords<E> shared_row_words(uint32_t eight_rows, uint32_t words_offset) {
  RowWords<E> out;
  if constexpr (E == 16) {
    const uint64_t v = load_shared<uint64_t>(eight_rows + words_offset);
    out.word[0] = static_cast<uint32_t>(v);
    out.word[1] = static_cast<uint32_t>(v >> 32);
  } else {
#pragma unroll
    for (int i = 0; i < E / 32; ++i) {
      const Chunk v = load_shared<Chunk>(eight_rows + (words_offset ^ (i << 4)));
#pragma unroll
      for (int w = 0; w < 4; ++w) out.word[i * 4 + w] = v.word[w];
    }
  }
  return out;
}

// The same share read from a row in global memory; zeros unless the row exists.
template <int E>
FASTAMR_DEVICE RowWords<E> global_row_words(const Chunk* row, int place, bool exists) {
  RowWords<E> out = {};
  if (!exists) return out;
  if constexpr (E == 16) {
    const uint64_t v = load_constant(reinterpret_cast<const uint64_t*>(row) + place);
    out.word[0] = static_cast<uint32_t>(v);
    out.word[1] = static_cast<uint32_t>(v >> 32);
  } else {
#pragma unroll
    for (int i = 0; i < E / 32; ++i) {
      const Chunk v = load_constant(row + place * (E / 32) + i);
#pragma unroll
      for (int w = 0; w < 4; ++w) out.word[i * 4 + w] = v.word[w];
    }
  }
  return out;
}

// Rows `row` and `row + 8` of a 16-row tile.
template <int E>
struct TileWords {
  RowWords<E> low, high;
};

template <int E>
FASTAMR_DEVICE TileWords<E> shared_tile_words(uint32_t sixteen_rows, uint32_t words_offset) {
  return {shared_row_words<E>(sixteen_rows, words_offset),
          shared_row_words<E>(sixteen_rows + 8 * Panel<E>::row_bytes, words_offset)};
}

// sum (16 x 8) += tile (16 x E) * rows (8 x E) transposed.
template <class T, int E>
FASTAMR_DEVICE void contract_rows(float (&sum)[4], const TileWords<E>& tile, const RowWords<E>& rows) {
#pragma unroll
  for (int i = 0; i < E / 8; i += 2) {
    const uint32_t a[4] = {tile.low.word[i], tile.high.word[i], tile.low.word[i + 1], tile.high.word[i + 1]};
    multiply_add<T>(sum, a, rows.word[i], rows.word[i + 1]);
  }
}

// The same from panels, a few words at a time: takes fewer registers.
template <class T, int E>
FASTAMR_DEVICE void contract_panels(float (&sum)[4], uint32_t sixteen_rows, uint32_t eight_rows,
                                    uint32_t words_offset) {
  if constexpr (E == 16) {
    contract_rows<T, E>(sum, shared_tile_words<E>(sixteen_rows, words_offset),
                        shared_row_words<E>(eight_rows, words_offset));
  } else {
#pragma unroll
    for (int i = 0; i < E / 32; ++i) {
      const uint32_t offset = words_offset ^ (i << 4);
      const Chunk low = load_shared<Chunk>(sixteen_rows + offset);
      const Chunk high = load_shared<Chunk>(sixteen_rows + 8 * Panel<E>::row_bytes + offset);
      const Chunk rows = load_shared<Chunk>(eight_rows + offset);
#pragma unroll
      for (int w = 0; w < 4; w += 2) {
        const uint32_t a[4] = {low.word[w], high.word[w], low.word[w + 1], high.word[w + 1]};
        multiply_add<T>(sum, a, rows.word[w], rows.word[w + 1]);
      }
    }
  }
}

// sum (16 x E) += a (16 x 16) * panel rows (16 x E).
template <class T, int E>
FASTAMR_DEVICE void multiply_rows(float (&sum)[E / 8][4], const uint32_t (&a)[4], uint32_t sixteen_rows,
                                  uint32_t matrices_offset) {
#pragma unroll
  for (int pair = 0; pair < E / 16; ++pair) {
    uint32_t b[4];
    load_matrices_transposed(b, sixteen_rows + (matrices_offset ^ (pair << 5)));
    multiply_add<T>(sum[pair * 2], a, b[0], b[1]);
    multiply_add<T>(sum[pair * 2 + 1], a, b[2], b[3]);
  }
}

// Within each quad: word w of the lane at place p becomes word p of the lane at place w.
FASTAMR_DEVICE void transpose_quad(uint32_t (&word)[4], int place) {
  const bool odd = place & 1, upper = place & 2;
  const uint32_t a = shuffle_xor(odd ? word[0] : word[1], 1);
  const uint32_t b = shuffle_xor(odd ? word[2] : word[3], 1);
  const uint32_t half[4] = {odd ? a : word[0], odd ? word[1] : a, odd ? b : word[2], odd ? word[3] : b};
  const uint32_t c = shuffle_xor(upper ? half[0] : half[2], 2);
  const uint32_t d = shuffle_xor(upper ? half[1] : half[3], 2);
  word[0] = upper ? c : half[0];
  word[1] = upper ? d : half[1];
  word[2] = upper ? half[2] : c;
  word[3] = upper ? half[3] : d;
}

// Rows of one sequence and head in global memory: a 64-bit base, 32-bit arithmetic in chunks from there.
template <class C>
struct HeadRows {
  C* base;
  uint32_t stride;  // chunks from row to row

  FASTAMR_DEVICE C* row(int index) const { return at(index, 0); }
  FASTAMR_DEVICE C* at(int index, int chunk) const {
    return base + (static_cast<uint32_t>(index) * stride + static_cast<uint32_t>(chunk));
  }
};

// Where a lane's two rows of an accumulator tile go. `add` adds to what is there.
struct TileTarget {
  Chunk* row[2];
  bool store[2];
  bool add;
};

template <class T>
FASTAMR_DEVICE Chunk add_chunks(Chunk x, const Chunk& y) {
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const Pair a = unpack<T>(x.word[w]), b = unpack<T>(y.word[w]);
    x.word[w] = pack<T>(a.first + b.first, a.second + b.second);
  }
  return x;
}

template <class T, bool may_add>
FASTAMR_DEVICE void send_chunk(Chunk* target, const uint32_t (&word)[4], bool store, bool add) {
  if (!store) return;
  Chunk chunk = {{word[0], word[1], word[2], word[3]}};
  if constexpr (may_add) {
    if (add) chunk = add_chunks<T>(load_global(target), chunk);
  }
  store_global(target, chunk);
}

// Stores tile * factor (one factor for each of the lane's rows) as whole chunks.
template <class T, int E, bool may_add>
FASTAMR_DEVICE void store_tile(const float (&tile)[E / 8][4], const float (&factor)[2], const TileTarget& to,
                               Lane lane) {
  const int place = lane.place;
  if constexpr (E == 16) {
    // Two chunks of row `row`, then two of row + 8: one for each place.
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int half = i >> 1;
      const float* pair = &tile[i & 1][half * 2];
      word[i] = pack<T>(pair[0] * factor[half], pair[1] * factor[half]);
    }
    transpose_quad(word, place);
    const bool upper = place & 2;
    send_chunk<T, may_add>((upper ? to.row[1] : to.row[0]) + (place & 1), word,
                           upper ? to.store[1] : to.store[0], to.add);
  } else {
#pragma unroll
    for (int group = 0; group < E / 32; ++group) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t word[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* pair = &tile[group * 4 + i][half * 2];
          word[i] = pack<T>(pair[0] * factor[half], pair[1] * factor[half]);
        }
        transpose_quad(word, place);
        send_chunk<T, may_add>(to.row[half] + group * 4 + place, word, to.store[half], to.add);
      }
    }
  }
}

}  // namespace fastamr::gpu
