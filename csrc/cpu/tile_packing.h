// Matrices into tiles: the order that the matrix unit wants, and float numbers as sums of bfloat16 numbers.
//
// A tile of the left factor holds 16 rows of 32 numbers along the contraction. A tile of the right factor holds 16 pairs
// along the contraction, each for 16 columns. With a pair as one 32-bit word, either is the other's transpose.
#pragma once

#include "tiles.h"

#if defined(FASTAMR_TILES)

namespace fastamr {
namespace {

// The first `count` of 16 or 32 lanes.
FASTAMR_INLINE __mmask16 first16(int64_t count) { return static_cast<__mmask16>((1u << (count < 16 ? count : 16)) - 1); }
FASTAMR_INLINE __mmask32 first32(int64_t count) {
  return static_cast<__mmask32>((uint64_t{1} << (count < 32 ? count : 32)) - 1);
}

using Words16 = Bits<float>;

// Two vectors of floats as 32 bfloat16 numbers, each the nearest, ties to even: those of `low` first.
FASTAMR_INLINE Words16 to_bfloat16(Vector<float> low, Vector<float> high) {
#if defined(FASTAMR_EMULATE_TILES)
  uint16_t numbers[32];
  store<float>(reinterpret_cast<BFloat16*>(numbers), low);
  store<float>(reinterpret_cast<BFloat16*>(numbers + 16), high);
  Words16 words;
  __builtin_memcpy(&words, numbers, sizeof(words));
  return words;
#else
  // Processors with the matrix unit have this instruction. It takes denormal numbers for 0, as the unit does.
  __m512 words;
  asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(words) : "v"((__m512)high), "v"((__m512)low));
  return (Words16)words;
#endif
}

FASTAMR_INLINE __mmask16 is_infinite(Words16 bits) {
  constexpr int infinities = 0x18;
  return _mm512_fpclass_ps_mask((__m512)bits, infinities);
}

// Take the next part but the last off 16 floats: the nearest bfloat16 number, in the upper halves of words. What would
// be rounded to infinity is cut off instead, and what is infinite stays whole for the last part: in an earlier one it
// would meet the zeros among the other factor's parts. NaN is a rest that stays.
FASTAMR_INLINE Words16 next_part(Vector<float>& rest) {
  const __m512i bits = (__m512i)rest, upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  const __m512i nearest = _mm512_maskz_and_epi32(0xffff, _mm512_add_epi32(bits, _mm512_set1_epi32(0x8000)), upper);
  const __m512i cut = _mm512_maskz_and_epi32(static_cast<__mmask16>(~is_infinite((Words16)bits)), bits, upper);
  const Words16 part = (Words16)_mm512_mask_mov_epi32(nearest, is_infinite((Words16)nearest), cut);
  rest -= (Vector<float>)part;
  return part;
}

template <class Number>
FASTAMR_INLINE Vector<float> load_first(const Number* from, int64_t count) {
  return (Vector<float>)_mm512_maskz_loadu_ps(first16(count), from);
}

FASTAMR_INLINE void store_words(uint16_t* to, Words16 words) { __builtin_memcpy(to, &words, sizeof(words)); }

// 32 numbers of a row as 16 words of two.
template <int Parts>
FASTAMR_INLINE void load_row(const BFloat16* from, int64_t count, Words16 (&words)[Parts]) {
  words[0] = (Words16)_mm512_maskz_loadu_epi16(first32(count), from);
}

template <int Parts>
FASTAMR_INLINE void load_row(const float* from, int64_t count, Words16 (&words)[Parts]) {
  Vector<float> low = load_first(from, count), high = {};
  if (count > 16) high = load_first(from + 16, count - 16);
  FASTAMR_UNROLL
  for (int part = 0; part < Parts - 1; ++part) {
    const Words16 first = next_part(low), second = next_part(high);
    words[part] = to_bfloat16((Vector<float>)first, (Vector<float>)second);
  }
  words[Parts - 1] = to_bfloat16(low, high);
}

// 16 numbers of two rows, `second` null for a row of zeros, as 16 words of one number of each.
template <int Parts>
FASTAMR_INLINE void load_pair(const BFloat16* first, const BFloat16* second, int64_t count, Words16 (&words)[Parts]) {
  const __mmask16 lanes = first16(count);
  words[0] = widened((Halves)_mm256_maskz_loadu_epi16(lanes, first));
  if (second != nullptr) words[0] |= widened((Halves)_mm256_maskz_loadu_epi16(lanes, second)) << 16;
}

template <int Parts>
FASTAMR_INLINE void load_pair(const float* first, const float* second, int64_t count, Words16 (&words)[Parts]) {
  Vector<float> low = load_first(first, count), high = {};
  if (second != nullptr) high = load_first(second, count);
  FASTAMR_UNROLL
  for (int part = 0; part < Parts - 1; ++part) {
    const Words16 lower = (next_part(low) >> 16) & 0xffff;
    words[part] = lower | next_part(high);
  }
  // Number i of the lower half beside number i of the upper half.
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,  //
                                         23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  words[Parts - 1] = (Words16)_mm512_maskz_permutexvar_epi16(0xffffffff, order, (__m512i)to_bfloat16(low, high));
}

// A row of a left factor into row `row` of its tiles: `steps` tiles, `step_size` numbers apart, the parts of each
// `part_size` apart. Beyond `count` numbers follows 0.
template <int Parts, class T>
FASTAMR_INLINE void pack_row(const T* from, int64_t count, int64_t steps, int64_t step_size, int64_t part_size,
                             uint16_t* to) {
  for (int64_t step = 0; step < steps; ++step) {
    Words16 words[Parts] = {};
    const int64_t left = count - step * kTileDepth;
    load_row<Parts>(from + step * kTileDepth, left > 0 ? left : 0, words);
    for (int part = 0; part < Parts; ++part) {
      store_words(to + step * step_size + part * part_size, words[part]);
    }
  }
}

// How a tile's words lie in the source: along a row, or across two rows below each other.
enum class Words { along, across };

// One tile for each part, `part_size` numbers apart in `to`. The source has `rows` x `columns` numbers from `from` on
// (more than a tile holds count as a tile's), the rest of the tile is 0.
template <int Parts, Words Kind, bool Transposed, class T>
__attribute__((noinline)) void pack_tile(const T* from, int64_t stride, int64_t rows, int64_t columns, uint16_t* to,
                              int64_t part_size) {
  Vector<float> words[Parts][kTileRows];
  FASTAMR_UNROLL
  for (int row = 0; row < kTileRows; ++row) {
    Words16 loaded[Parts] = {};
    const int64_t source = Kind == Words::along ? row : 2 * row;
    if (source < rows) {
      if constexpr (Kind == Words::along) {
        load_row<Parts>(from + source * stride, columns, loaded);
      } else {
        const T* second = source + 1 < rows ? from + (source + 1) * stride : nullptr;
        load_pair<Parts>(from + source * stride, second, columns, loaded);
      }
    }
    for (int part = 0; part < Parts; ++part) words[part][row] = (Vector<float>)loaded[part];
  }
  for (int part = 0; part < Parts; ++part) {
    if constexpr (Transposed) transpose<float>(words[part]);
    FASTAMR_UNROLL
    for (int row = 0; row < kTileRows; ++row) {
      store_words(to + part * part_size + row * kTileDepth, (Words16)words[part][row]);
    }
  }
}

}  // namespace
}  // namespace fastamr

#endif
