// Products on the matrix unit. Weights are brought into the unit's order once a call, rows block by block; a block's sums
// stay in the cache until the pass that follows has read them.
#include "product_kernels.h"
#include "row_functions.h"
#include "row_kernels.h"
#include "tile_blocks.h"

#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace fastamr {

#if defined(FASTAMR_TILES)

namespace {

// Memory that a thread keeps between calls, on a cache line's boundary.
class Scratch {
 public:
  template <class Number>
  Number* numbers(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(Number);
    if (bytes > size_) {
      size_ = 0;
      memory_.reset();
      memory_.reset(static_cast<char*>(::operator new(bytes, std::align_val_t{64})));
      size_ = bytes;
    }
    return reinterpret_cast<Number*>(memory_.get());
  }

 private:
  struct Free {
    void operator()(char* memory) const { ::operator delete(memory, std::align_val_t{64}); }
  };
  std::unique_ptr<char, Free> memory_;
  size_t size_ = 0;
};

// Of the calling thread, filled by all; and of each thread, for the block that it works on.
thread_local Scratch shared_left, shared_right, block_rows, block_sums;

// Columns of an elementwise pass that wait for it at a time.
constexpr int64_t kChunk = 64;
// Rows of a weight's gradient that are in the unit's order at a time.
constexpr int64_t kSlice = 1024;
// Rows of sums must not lie a power of two apart: they would meet in the same lines of the cache.
constexpr int64_t kGap = 16;

// A matrix with what is left of it from a corner on.
template <class T>
struct Corner {
  const T* from;
  int64_t stride, rows, columns;

  Corner at(int64_t row, int64_t column) const {
    const bool inside = row < rows && column < columns;
    return {inside ? from + row * stride + column : from, stride, inside ? rows - row : 0, inside ? columns - column : 0};
  }
};

// 32 columns of a right factor, or 32 rows of a left one that lies transposed, over one step of the contraction, the
// matrix being (contraction, columns).
template <int Parts, bool Transposed, class T>
FASTAMR_INLINE void pack_across(const Corner<T>& corner, uint16_t* to) {
  for (int half = 0; half < 2; ++half) {
    const Corner<T> mine = corner.at(0, half * kTileRows);
    pack_tile<Parts, Words::across, Transposed>(mine.from, mine.stride, mine.rows, mine.columns,
                                                to + half * kTileNumbers, 2 * kTileNumbers);
  }
}

// All of a weight in the unit's order: panels of 32 columns of the product, each with all of the contraction.
template <int Parts, class T>
void pack_weight(const Product<T>& product, uint16_t* to, const Parallel& parallel) {
  const int64_t panels = blocks_of(product.columns, kBlock), steps = blocks_of(product.inner, kTileDepth);
  const auto place = [&](int64_t panel, int64_t step) { return to + (panel * steps + step) * kPackedDepth<Parts>; };
  if (!product.transposed) {
    const Corner<T> weight = {product.weight, product.columns, product.inner, product.columns};
    return parallel(steps, [&](int64_t begin, int64_t end) {
      for (int64_t step = begin; step < end; ++step) {
        for (int64_t panel = 0; panel < panels; ++panel) {
          pack_across<Parts, false>(weight.at(step * kTileDepth, panel * kBlock), place(panel, step));
        }
      }
    });
  }
  const Corner<T> weight = {product.weight, product.inner, product.columns, product.inner};
  parallel(panels, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      for (int64_t step = 0; step < steps; ++step) {
        for (int half = 0; half < 2; ++half) {
          const Corner<T> mine = weight.at(panel * kBlock + half * kTileRows, step * kTileDepth);
          pack_tile<Parts, Words::along, true>(mine.from, mine.stride, mine.rows, mine.columns,
                                               place(panel, step) + half * kTileNumbers, 2 * kTileNumbers);
        }
      }
    }
  });
}

// Up to 32 rows of x as a left factor.
template <int Parts, class T>
__attribute__((noinline)) void pack_rows(const Product<T>& product, int64_t first, int64_t count, uint16_t* to) {
  const int64_t steps = blocks_of(product.inner, kTileDepth);
  for (int64_t row = 0; row < kBlock; ++row) {
    uint16_t* mine = to + row / kTileRows * kTileNumbers + row % kTileRows * kTileDepth;
    const T* from = product.x + (first + (row < count ? row : 0)) * product.inner;
    pack_row<Parts>(from, row < count ? product.inner : 0, steps, kPackedDepth<Parts>, 2 * kTileNumbers, mine);
  }
}

// What follows the product, for columns column ... column + count of a row.
template <class T>
FASTAMR_INLINE void finish(const Linear<T, float>& pass, int64_t row, int64_t column, int64_t count,
                           const float* product, float*) {
  add_bias(product, pass.bias == nullptr ? nullptr : pass.bias + column, pass.out + row * pass.columns + column, count);
}

template <class T>
FASTAMR_INLINE void finish(const Gelu<T, float>& pass, int64_t row, int64_t column, int64_t count,
                           const float* product, float*) {
  const int64_t start = row * pass.columns + column;
  gelu_row(product, pass.bias + column, pass.h + start, pass.slope == nullptr ? nullptr : pass.slope + start, count);
}

template <class T>
FASTAMR_INLINE void finish(const GeluBackward<T, float>& pass, int64_t row, int64_t column, int64_t count,
                           const float* product, float* sums) {
  const int64_t start = row * pass.columns + column;
  gelu_backward_row(product, pass.slope + start, pass.du + start, sums + column, count);
}

template <class T>
FASTAMR_INLINE void finish(const Norm<T, float>& pass, int64_t row, int64_t, int64_t, const float* product, float*) {
  T* total = pass.total + row * pass.columns;
  add_row(pass, row, product, total);
  standardise_row(pass, row, total);
}

template <class T>
FASTAMR_INLINE void finish(const NormBackward<T, float>& pass, int64_t row, int64_t, int64_t, const float* product,
                           float* sums) {
  norm_backward_row(pass, row, product, sums);
}

template <class Pass>
constexpr bool needs_whole_rows = false;
template <class T>
constexpr bool needs_whole_rows<Norm<T, float>> = true;
template <class T>
constexpr bool needs_whole_rows<NormBackward<T, float>> = true;

// Sums over groups of rows that depend on the number of rows alone, as in run_rows: any number of threads adds in the
// same order, and a block may lie across two groups.
struct GroupSums {
  int64_t rows_per_group, size;
  float* partials;

  float* of_row(int64_t row) const { return size == 0 ? nullptr : partials + row / rows_per_group * size; }
};

// A block's sums that wait for the pass; it goes over their rows while the next block is multiplied.
template <class Pass>
struct Waiting {
  int64_t first = 0, count = 0, column = 0, columns = 0, stride = 0;
  const float* product = nullptr;
  int64_t done = 0;

  // One copy for all callers: the compiler may fuse a multiplication and an addition here and not there, and who finishes
  // a row depends on the number of threads.
  __attribute__((noinline, noclone)) void finish_row(const Pass& pass, const GroupSums& sums) {
    const int64_t row = first + done;
    if (done < count) finish(pass, row, column, columns, product + done * stride, sums.of_row(row));
    ++done;
  }
  FASTAMR_INLINE void finish_all(const Pass& pass, const GroupSums& sums) {
    while (done < count) finish_row(pass, sums);
  }
};

// What one thread computes: blocks of up to 32 rows, chunk by chunk of columns.
template <int Parts, class T, class Pass>
class Worker {
 public:
  Worker(const Product<T>& product, const Pass& pass, const uint16_t* weight, const GroupSums& sums)
      : product_(product), pass_(pass), weight_(weight), sums_(sums), steps_(blocks_of(product.inner, kTileDepth)) {
    padded_ = blocks_of(product.columns, kBlock) * kBlock;
    chunk_ = needs_whole_rows<Pass> || padded_ < kChunk ? padded_ : kChunk;
    stride_ = chunk_ + kGap;
    rows_ = block_rows.numbers<uint16_t>(steps_ * kPackedDepth<Parts>);
    buffers_ = block_sums.numbers<float>(2 * kBlock * stride_);
  }
  ~Worker() { waiting_.finish_all(pass_, sums_); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void rows(int64_t first, int64_t last) {
    for (; first < last; first += kBlock) {
      const int64_t count = last - first < kBlock ? last - first : kBlock;
      count > kTileRows ? block<2>(first, count) : block<1>(first, count);
    }
  }

 private:
  template <int Halves>
  void block(int64_t first, int64_t count) {
    pack_rows<Parts>(product_, first, count, rows_);
    for (int64_t column = 0; column < product_.columns; column += chunk_) {
      const int64_t end = column + chunk_ < padded_ ? column + chunk_ : padded_;
      multiply<Halves>(column, end);
      const int64_t columns = (end < product_.columns ? end : product_.columns) - column;
      waiting_ = {first, count, column, columns, stride_, buffers_ + turn_ * kBlock * stride_, 0};
      turn_ = 1 - turn_;
    }
  }

  // The block by columns column ... end of the weight; meanwhile the pass over what was multiplied before.
  template <int Halves>
  void multiply(int64_t column, int64_t end) {
    const int64_t slots = (end - column) / kBlock * steps_;
    int64_t owed = 0;
    float* buffer = buffers_ + turn_ * kBlock * stride_;
    for (int64_t at = column; at < end; at += kBlock) {
      multiply_block<Parts, Halves>(rows_, weight_ + at / kBlock * steps_ * kPackedDepth<Parts>, steps_,
                                    buffer + (at - column), stride_, [&](int64_t) {
                                      for (owed += kBlock; owed >= slots; owed -= slots) {
                                        waiting_.finish_row(pass_, sums_);
                                      }
                                    });
    }
    waiting_.finish_all(pass_, sums_);
  }

  const Product<T>& product_;
  const Pass& pass_;
  const uint16_t* weight_;
  const GroupSums& sums_;
  int64_t steps_, padded_ = 0, chunk_ = 0, stride_ = 0, turn_ = 0;
  uint16_t* rows_;
  float* buffers_;
  Waiting<Pass> waiting_;
};

template <int Parts, class T, class Pass>
void run_parts(const Product<T>& product, const Pass& pass, float* sums, const Parallel& parallel) {
  const int64_t panels = blocks_of(product.columns, kBlock), steps = blocks_of(product.inner, kTileDepth);
  uint16_t* weight = shared_right.numbers<uint16_t>(panels * steps * kPackedDepth<Parts>);
  pack_weight<Parts>(product, weight, parallel);
  const int64_t step = rows_per_group(product.rows), groups = row_groups(product.rows);
  const int64_t size = Pass::sum_rows * product.columns;
  std::vector<float> partials(groups * size);
  const GroupSums group_sums = {step, size, partials.data()};
  parallel(groups, [&](int64_t begin, int64_t end) {
    [[maybe_unused]] TileScope scope;
    Worker<Parts, T, Pass> worker(product, pass, weight, group_sums);
    worker.rows(begin * step, end * step < product.rows ? end * step : product.rows);
  });
  for (int64_t i = 0; i < size; ++i) sums[i] = 0;
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t i = 0; i < size; ++i) sums[i] += partials[group * size + i];
  }
}

template <class T, class Pass>
void run(const Product<T>& product, const Pass& pass, float* sums, const Parallel& parallel) {
  if constexpr (sizeof(T) == 2) {
    run_parts<1>(product, pass, sums, parallel);
  } else {
    if (product.parts == 1) return run_parts<1>(product, pass, sums, parallel);
    if (product.parts == 2) return run_parts<2>(product, pass, sums, parallel);
    run_parts<3>(product, pass, sums, parallel);
  }
}

// The gradient is computed with the narrower matrix on the left, which is the one that costs a transposition; where that
// makes it the gradient's transpose, blocks are transposed on their way out.
template <class T>
struct Factors {
  Corner<T> left, right;
  bool swapped;  // left is x

  Factors(const WeightGradient<T>& call, int64_t first, int64_t rows)
      : left{call.upstream + first * call.outputs, call.outputs, rows, call.outputs},
        right{call.x + first * call.inputs, call.inputs, rows, call.inputs},
        swapped(call.inputs < call.outputs) {
    if (swapped) std::swap(left, right);
  }
};

// Add or put 32 x 32 sums into place, as far as they lie in the gradient.
FASTAMR_INLINE void place_block(const float* sums, float* out, int64_t stride, int64_t rows, int64_t columns,
                                bool swapped, bool add) {
  const int64_t height = rows < kBlock ? rows : kBlock, width = columns < kBlock ? columns : kBlock;
  constexpr int lanes = Lanes<float>::count;
  for (int64_t row = 0; row < kBlock; row += lanes) {
    for (int64_t column = 0; column < width; column += lanes) {
      Vector<float> tile[lanes];
      const float* from = swapped ? sums + column * kBlock + row : sums + row * kBlock + column;
      FASTAMR_UNROLL
      for (int i = 0; i < lanes; ++i) tile[i] = load<float>(from + i * kBlock);
      if (swapped) transpose<float>(tile);
      const __mmask16 inside = first16(width - column);
      for (int64_t i = 0; i < lanes && row + i < height; ++i) {
        float* to = out + (row + i) * stride + column;
        if (add) tile[i] += (Vector<float>)_mm512_maskz_loadu_ps(inside, to);
        _mm512_mask_storeu_ps(to, inside, (__m512)tile[i]);
      }
    }
  }
}

// Rows first ... of both matrices.
template <int Parts, class T>
void run_slice(const WeightGradient<T>& call, int64_t first, int64_t rows, const Parallel& parallel) {
  const Factors<T> factors(call, first, rows);
  const int64_t narrow = blocks_of(factors.left.columns, kBlock), wide = blocks_of(factors.right.columns, kBlock);
  const int64_t steps = blocks_of(rows, kTileDepth), panel_size = steps * kPackedDepth<Parts>;
  uint16_t* left = shared_left.numbers<uint16_t>(narrow * panel_size);
  parallel(steps, [&](int64_t begin, int64_t end) {
    for (int64_t step = begin; step < end; ++step) {
      for (int64_t panel = 0; panel < narrow; ++panel) {
        pack_across<Parts, true>(factors.left.at(step * kTileDepth, panel * kBlock),
                                 left + panel * panel_size + step * kPackedDepth<Parts>);
      }
    }
  });
  // The wider matrix a few panels at a time, so that each is packed by the thread that multiplies with it.
  const int64_t group = wide < 16 ? 1 : wide < 32 ? 2 : 4;
  parallel(blocks_of(wide, group), [&](int64_t begin, int64_t end) {
    [[maybe_unused]] TileScope scope;
    uint16_t* right = block_rows.numbers<uint16_t>(group * panel_size);
    alignas(64) float sums[kBlock * kBlock];
    for (int64_t task = begin; task < end; ++task) {
      const int64_t panels = wide - task * group < group ? wide - task * group : group;
      for (int64_t step = 0; step < steps; ++step) {
        for (int64_t panel = 0; panel < panels; ++panel) {
          pack_across<Parts, false>(factors.right.at(step * kTileDepth, (task * group + panel) * kBlock),
                                    right + panel * panel_size + step * kPackedDepth<Parts>);
        }
      }
      for (int64_t i = 0; i < narrow; ++i) {
        for (int64_t panel = 0; panel < panels; ++panel) {
          multiply_block<Parts, 2>(left + i * panel_size, right + panel * panel_size, steps, sums, kBlock,
                                [](int64_t) {});
          const int64_t below = factors.swapped ? task * group + panel : i;
          const int64_t beside = factors.swapped ? i : task * group + panel;
          place_block(sums, call.out + below * kBlock * call.inputs + beside * kBlock, call.inputs,
                      call.outputs - below * kBlock, call.inputs - beside * kBlock, factors.swapped, first > 0);
        }
      }
    }
  });
}

template <int Parts, class T>
void run_slices(const WeightGradient<T>& call, const Parallel& parallel) {
  for (int64_t first = 0; first < call.rows; first += kSlice) {
    run_slice<Parts>(call, first, call.rows - first < kSlice ? call.rows - first : kSlice, parallel);
  }
}

template <class T>
void weight_gradient(const WeightGradient<T>& call, const Parallel& parallel) {
  if (call.rows == 0) std::memset(call.out, 0, sizeof(float) * call.outputs * call.inputs);
  if constexpr (sizeof(T) == 2) {
    run_slices<1>(call, parallel);
  } else {
    if (call.parts == 1) return run_slices<1>(call, parallel);
    if (call.parts == 2) return run_slices<2>(call, parallel);
    run_slices<3>(call, parallel);
  }
}

template <class T>
constexpr ProductFunctions<T> product_functions() {
  return {run, run, run, run, run, weight_gradient};
}

constexpr ProductKernels kKernels = {product_functions<float>(), product_functions<BFloat16>()};

}  // namespace

const ProductKernels* const tile_product_kernels = &kKernels;

#else

const ProductKernels* const tile_product_kernels = nullptr;

#endif

}  // namespace fastamr
