#include "gpu_emulator.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace fastamr::emulator {
namespace {

constexpr int kLanes = 32;
constexpr size_t kStackBytes = 128 << 10;
constexpr int kNobody = -1, kMany = -2;

[[noreturn]] void fail(const char* message) {
  std::fprintf(stderr, "emulated GPU, thread %d: %s\n", current_thread(), message);
  std::abort();
}

struct Access {
  uint32_t offset, bytes;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack;
  Exchange exchange;
  Event event = Event::none;
  bool vote = false;
  std::vector<Access> accesses;  // of shared memory since the lanes last met
  struct Copy {
    uint32_t offset;
    const void* source;
    bool exists;
  };
  std::vector<Copy> copies;
};

// Who touched a byte of shared memory last, and when: barriers of the CTA and of the warp passed by then.
struct Byte {
  int writer = kNobody, reader = kNobody, reader_warp = kNobody;
  uint32_t write_epoch = 0, write_warp_epoch = 0, read_epoch = 0, read_warp_epoch = 0;
};

struct Cta {
  std::vector<Fiber> fibers;
  std::vector<uint32_t> warp_epoch;
  std::vector<unsigned char> shared;
  std::vector<Byte> bytes;
  uint32_t epoch = 0;
  bool all = true, voted = true;
  bool reverse = false;
  int current = 0;
  ucontext_t main;
  const void* main_stack = nullptr;
  size_t main_stack_bytes = 0;
  void (*kernel)(void*) = nullptr;
  void* argument = nullptr;

  int threads() const { return static_cast<int>(fibers.size()); }
  int position(int thread) const {
    return reverse ? threads() - 1 - thread : thread;
  }  // in the order of running
};

Cta* cta = nullptr;

void switch_to(ucontext_t& from, int thread) {
  cta->current = thread;
  Fiber& next = cta->fibers[thread];
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, next.stack.get(), kStackBytes);
  swapcontext(&from, &next.context);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  swapcontext(&from, &next.context);
#endif
}

// ---- results of operations that a whole warp takes part in

void finish_shuffle(Fiber* warp) {
  for (int lane = 0; lane < kLanes; ++lane) {
    warp[lane].exchange.out[0] = warp[lane ^ warp[lane].exchange.in[1]].exchange.in[0];
  }
}

// Matrix m's rows are named by lanes 8m to 8m + 7; a lane gets column lane / 4 of rows 2 * (lane % 4) and the
// next.
void finish_matrices(Fiber* warp, int first_thread) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    const unsigned char* rows[8];
    uint32_t banks = 0;
    for (int row = 0; row < 8; ++row) {
      const uint32_t offset = warp[matrix * 8 + row].exchange.in[0];
      cta->current = first_thread + matrix * 8 + row;
      rows[row] = access(offset, 16, false);
      cta->fibers[cta->current].accesses.pop_back();
      banks |= 1u << (offset / 16 % 8);
    }
    counters().bank_conflicts += 8 - __builtin_popcount(banks);
    for (int lane = 0; lane < kLanes; ++lane) {
      uint16_t pair[2];
      for (int i = 0; i < 2; ++i) std::memcpy(&pair[i], rows[lane % 4 * 2 + i] + lane / 4 * 2, 2);
      warp[lane].exchange.out[matrix] = pair[0] | uint32_t{pair[1]} << 16;
    }
  }
}

// mma.sync.m16n8k16: a (16 x 16) in four words a lane, b (16 x 8) in two, sums (16 x 8) in four floats.
void finish_multiply(Fiber* warp) {
  float a[16][16], b[8][16];
  const bool half = warp[0].exchange.half_precision;
  for (int lane = 0; lane < kLanes; ++lane) {
    const Exchange& x = warp[lane].exchange;
    const int group = lane / 4, place = lane % 4;
    for (int side = 0; side < 2; ++side) {
      const int shift = side * 16;
      const auto value = [&](int word) { return to_float(static_cast<uint16_t>(x.in[word] >> shift), half); };
      a[group][place * 2 + side] = value(0);
      a[group + 8][place * 2 + side] = value(1);
      a[group][place * 2 + side + 8] = value(2);
      a[group + 8][place * 2 + side + 8] = value(3);
      b[group][place * 2 + side] = value(4);
      b[group][place * 2 + side + 8] = value(5);
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int e = 0; e < 4; ++e) {
      const int row = lane / 4 + (e >> 1) * 8, column = lane % 4 * 2 + (e & 1);
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[column][k];
      warp[lane].exchange.sum[e] += sum;
    }
  }
}

// Passes beyond the first that one access of all lanes needs: 8, 16 or 32 lanes share a pass for 16, 8 or
// fewer bytes.
int extra_passes(Fiber* warp, size_t which) {
  const uint32_t bytes = warp[0].accesses[which].bytes;
  const int together = bytes == 16 ? 8 : bytes == 8 ? 16 : 32;
  int extra = 0;
  for (int start = 0; start < kLanes; start += together) {
    std::vector<uint32_t> words;
    for (int lane = start; lane < start + together; ++lane) {
      const Access& a = warp[lane].accesses[which];
      for (uint32_t word = a.offset / 4; word <= (a.offset + a.bytes - 1) / 4; ++word) words.push_back(word);
    }
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    int load[32] = {};
    for (uint32_t word : words) ++load[word % 32];
    extra += std::max(0, *std::max_element(load, load + 32) - 1);
  }
  return extra;
}

// Counts the conflicts of accesses that all lanes made alike.
void settle_accesses(Fiber* warp) {
  const size_t count = warp[0].accesses.size();
  bool alike = true;
  for (int lane = 1; lane < kLanes && alike; ++lane) {
    alike = warp[lane].accesses.size() == count;
    for (size_t i = 0; i < count && alike; ++i)
      alike = warp[lane].accesses[i].bytes == warp[0].accesses[i].bytes;
  }
  for (size_t i = 0; alike && i < count; ++i) counters().bank_conflicts += extra_passes(warp, i);
  for (int lane = 0; lane < kLanes; ++lane) warp[lane].accesses.clear();
}

void finish_warp(int first_thread) {
  Fiber* warp = &cta->fibers[first_thread];
  const int here = cta->current;
  for (int lane = 1; lane < kLanes; ++lane) {
    if (warp[lane].event != warp[0].event) fail("lanes of a warp have diverged");
  }
  settle_accesses(warp);
  if (warp[0].event == Event::shuffle) finish_shuffle(warp);
  if (warp[0].event == Event::matrices) finish_matrices(warp, first_thread);
  if (warp[0].event == Event::multiply) finish_multiply(warp);
  if (warp[0].event == Event::warp_barrier) ++cta->warp_epoch[first_thread / kLanes];
  cta->current = here;
}

void finish_cta() {
  const Event event = cta->fibers[0].event;
  for (const Fiber& fiber : cta->fibers) {
    if (fiber.event != event) fail("warps have reached different barriers");
  }
  ++cta->epoch;
  cta->voted = cta->all;
  cta->all = true;
}

bool is_for_all(Event event) {
  return event == Event::barrier || event == Event::vote || event == Event::exit;
}

// ---- fibers

void enter() {
#if defined(__SANITIZE_ADDRESS__)
  const void* stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  if (cta->position(cta->current) == 0) {
    cta->main_stack = stack;
    cta->main_stack_bytes = bytes;
  }
#endif
  cta->kernel(cta->argument);
  if (!cta->fibers[cta->current].copies.empty()) fail("copies were never waited for");
  meet(Event::exit);
  std::abort();
}

void record_race(const char* kind, uint32_t offset, int other) {
  if (counters().races++ == 0) {
    std::fprintf(stderr, "race: thread %d %s byte %u of shared memory beside thread %d\n", cta->current, kind,
                 offset, other);
  }
}

void check_byte(uint32_t offset, bool write) {
  Byte& byte = cta->bytes[offset];
  const int thread = cta->current, warp = thread / kLanes;
  const uint32_t warp_epoch = cta->warp_epoch[warp];
  if (byte.writer != kNobody && byte.writer != thread && byte.write_epoch == cta->epoch) {
    const bool ordered = byte.writer / kLanes == warp && byte.write_warp_epoch < warp_epoch;
    if (!ordered) record_race(write ? "overwrites" : "reads", offset, byte.writer);
  }
  const bool read_now = byte.reader != kNobody && byte.read_epoch == cta->epoch;
  if (write) {
    if (read_now && byte.reader != thread) {
      const bool ordered = byte.reader_warp == warp && byte.read_warp_epoch < warp_epoch;
      if (!ordered) record_race("overwrites", offset, byte.reader);
    }
    byte.writer = thread;
    byte.write_epoch = cta->epoch;
    byte.write_warp_epoch = warp_epoch;
    return;
  }
  byte.reader = !read_now || byte.reader == thread ? thread : kMany;
  byte.reader_warp = !read_now || byte.reader_warp == warp ? warp : kMany;
  byte.read_epoch = cta->epoch;
  byte.read_warp_epoch = warp_epoch;
}

}  // namespace

Counters& counters() {
  static Counters instance;
  return instance;
}

int current_thread() { return cta->current; }
int current_thread_count() { return cta->threads(); }
Exchange& exchange() { return cta->fibers[cta->current].exchange; }
void vote(bool condition) { cta->all &= condition; }
bool vote_result() { return cta->voted; }

void meet(Event event) {
  const int thread = cta->current, warp = thread / kLanes;
  Fiber& fiber = cta->fibers[thread];
  fiber.event = event;
  const int position = cta->position(thread);
  const bool last_lane = position % kLanes == kLanes - 1, last = position == cta->threads() - 1;
  if (last_lane) finish_warp(warp * kLanes);
  if (last && is_for_all(event)) finish_cta();
  int next = position + 1;
  if (is_for_all(event)) {
    next %= cta->threads();
  } else if (last_lane) {
    next -= kLanes;
  }
  if (event == Event::exit && last) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(nullptr, cta->main_stack, cta->main_stack_bytes);
#endif
    setcontext(&cta->main);
  }
  switch_to(fiber.context, cta->position(next));
}

unsigned char* access(uint32_t offset, uint32_t bytes, bool write) {
  if (offset % bytes != 0) fail("misaligned access to shared memory");
  if (uint64_t{offset} + bytes > cta->shared.size()) fail("access beyond the end of shared memory");
  for (uint32_t i = 0; i < bytes; ++i) check_byte(offset + i, write);
  cta->fibers[cta->current].accesses.push_back({offset, bytes});
  return cta->shared.data() + offset;
}

void copy_later(uint32_t offset, const void* source, bool exists) {
  // Reading what the copy replaces before it has arrived is an error too.
  std::memset(access(offset, 16, true), 0xFF, 16);
  cta->fibers[cta->current].copies.push_back({offset, source, exists});
}

void finish_copies() {
  for (const Fiber::Copy& copy : cta->fibers[cta->current].copies) {
    unsigned char* target = access(copy.offset, 16, true);
    if (copy.exists) {
      std::memcpy(target, copy.source, 16);
    } else {
      std::memset(target, 0, 16);
    }
  }
  cta->fibers[cta->current].copies.clear();
}

float to_float(uint16_t bits, bool half_precision) {
  if (half_precision) {
    _Float16 value;
    std::memcpy(&value, &bits, 2);
    return static_cast<float>(value);
  }
  const uint32_t word = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

uint16_t from_float(float value, bool half_precision) {
  if (half_precision) {
    const _Float16 half = static_cast<_Float16>(value);
    uint16_t bits;
    std::memcpy(&bits, &half, 2);
    return bits;
  }
  if (std::isnan(value)) return 0x7FFF;
  uint32_t word;
  std::memcpy(&word, &value, 4);
  return static_cast<uint16_t>((word + 0x7FFF + (word >> 16 & 1)) >> 16);  // to nearest, ties to even
}

void run_cta(int threads, uint32_t shared_bytes, bool reverse, void (*kernel)(void*), void* argument) {
  Cta block;
  block.fibers.resize(threads);
  block.warp_epoch.resize(threads / kLanes);
  block.shared.assign(shared_bytes, 0xFF);
  block.bytes.resize(shared_bytes);
  block.reverse = reverse;
  block.kernel = kernel;
  block.argument = argument;
  cta = &block;
  for (Fiber& fiber : block.fibers) {
    fiber.stack.reset(new unsigned char[kStackBytes]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  switch_to(block.main, block.position(0));
  cta = nullptr;
}

}  // namespace fastamr::emulator
