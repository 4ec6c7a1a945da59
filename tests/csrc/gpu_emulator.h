// The primitives of csrc/cuda/primitives.h on a host, lane by lane: each GPU thread is a fiber of one host
// thread.
//
// Fibers run one after another and change hands only where the GPU synchronises: at shuffles, ldmatrix, mma
// and barriers. Between two barriers a warp runs to the end before the next one starts, in an order that can
// be reversed: the extreme schedules of a GPU. Beyond the numbers, it checks what the hardware would not
// report:
//   - shared memory starts as NaN, cp.async arrives only when waited for, accesses are bounds-checked and
//   aligned;
//   - two threads' accesses to one byte, one of them a write, must be separated by a barrier of the CTA, or
//   of the warp
//     if they share one (`races`);
//   - all lanes of a warp reach the same operation, all warps the same barrier (`fail` stops the program);
//   - how many extra passes bank conflicts cost (`bank_conflicts`).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "storage.h"

#define FASTAMR_DEVICE inline
#define FASTAMR_HOST_DEVICE inline

namespace fastamr::emulator {

enum class Event : int { none, shuffle, matrices, multiply, warp_barrier, barrier, vote, exit };

// What a lane hands to the others and gets back.
struct Exchange {
  uint32_t in[10] = {};
  uint32_t out[4] = {};
  float sum[4] = {};
  bool half_precision = false;
};

// Runs `kernel` with `threads` fibers and `shared_bytes` of shared memory. `reverse` runs warps and lanes
// backwards.
void run_cta(int threads, uint32_t shared_bytes, bool reverse, void (*kernel)(void*), void* argument);

struct Counters {
  int64_t races = 0;
  int64_t bank_conflicts = 0;
};
Counters& counters();

int current_thread();
int current_thread_count();
Exchange& exchange();       // of the calling lane
void meet(Event event);     // returns when the lanes that take part have all come, with results in `out`
void vote(bool condition);  // for Event::vote
bool vote_result();
unsigned char* access(uint32_t offset, uint32_t bytes, bool write);  // checked and recorded
void copy_later(uint32_t offset, const void* source, bool exists);
void finish_copies();

float to_float(uint16_t bits, bool half_precision);
uint16_t from_float(float value, bool half_precision);

}  // namespace fastamr::emulator

namespace fastamr::gpu {

inline int thread_index() { return emulator::current_thread(); }
inline int thread_count() { return emulator::current_thread_count(); }
inline int uniform(int value) { return value; }
inline void barrier() { emulator::meet(emulator::Event::barrier); }
inline void warp_barrier() { emulator::meet(emulator::Event::warp_barrier); }

inline bool barrier_all(bool condition) {
  emulator::vote(condition);
  emulator::meet(emulator::Event::vote);
  return emulator::vote_result();
}

template <class V>
V shuffle_xor(V value, int mask) {
  static_assert(sizeof(V) == 4);
  emulator::Exchange& mine = emulator::exchange();
  std::memcpy(&mine.in[0], &value, 4);
  mine.in[1] = static_cast<uint32_t>(mask);
  emulator::meet(emulator::Event::shuffle);
  std::memcpy(&value, &mine.out[0], 4);
  return value;
}

template <class V>
V load_shared(uint32_t offset) {
  V value;
  std::memcpy(&value, emulator::access(offset, sizeof(V), false), sizeof(V));
  return value;
}

template <class V>
void store_shared(uint32_t offset, V value) {
  std::memcpy(emulator::access(offset, sizeof(V), true), &value, sizeof(V));
}

template <class V>
V load_constant(const V* source) {
  return *source;
}

inline Chunk load_global(const Chunk* source) { return *source; }
inline void store_global(Chunk* target, Chunk value) { *target = value; }

inline void copy_async(uint32_t target, const Chunk* source, bool exists) {
  emulator::copy_later(target, source, exists);
}
inline void wait_for_copies() { emulator::finish_copies(); }

inline void load_matrices_transposed(uint32_t (&out)[4], uint32_t offset) {
  emulator::exchange().in[0] = offset;
  emulator::meet(emulator::Event::matrices);
  std::memcpy(out, emulator::exchange().out, sizeof(out));
}

template <class T>
constexpr bool is_half = false;
template <>
inline constexpr bool is_half<Half> = true;

template <class T>
void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulator::Exchange& mine = emulator::exchange();
  std::memcpy(mine.in, a, sizeof(a));
  mine.in[4] = b0;
  mine.in[5] = b1;
  std::memcpy(mine.sum, sum, sizeof(sum));
  mine.half_precision = is_half<T>;
  emulator::meet(emulator::Event::multiply);
  std::memcpy(sum, mine.sum, sizeof(sum));
}

template <class T>
uint32_t pack(float first, float second) {
  return emulator::from_float(first, is_half<T>) | uint32_t{emulator::from_float(second, is_half<T>)} << 16;
}

template <class T>
Pair unpack(uint32_t word) {
  return {emulator::to_float(static_cast<uint16_t>(word), is_half<T>),
          emulator::to_float(static_cast<uint16_t>(word >> 16), is_half<T>)};
}

inline uint32_t multiply_high(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }
inline float exp2_fast(float x) { return std::exp2(x); }
inline float log2_fast(float x) { return std::log2(x); }
using std::fmaxf;

}  // namespace fastamr::gpu
