// Runs the CUDA attention kernels in emulation and compares them with float64.
//
//     cuda_attention              every case
//     cuda_attention --quick      a part of them, for slow builds
//     cuda_attention --verbose    the error of each result
//     cuda_attention NAME         cases whose name contains NAME
//     cuda_attention --philox KEY COUNTER ROW COLUMN    the oracle's dropout word, to compare with the
//     package's
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cuda_case.h"

namespace fastamr::test {
namespace {

template <class Function>
void run_grid(int64_t ctas, int threads, uint32_t bytes, bool reverse, Function&& function) {
  struct Argument {
    Function& function;
    int64_t block;
  };
  for (int64_t block = 0; block < ctas; ++block) {
    Argument argument = {function, reverse ? ctas - 1 - block : block};
    emulator::run_cta(
        threads, bytes, reverse,
        [](void* opaque) {
          Argument& argument = *static_cast<Argument*>(opaque);
          argument.function(argument.block);
        },
        &argument);
  }
}

// Both return the bytes of shared memory of a CTA.
template <class T, int E>
uint32_t run_forward(Case<T>& test, bool reverse) {
  const Forward<T, float>& call = test.forward();
  return gpu::visit_form(gpu::choose_form(call.shape, call.structure), [&](auto chosen) {
    constexpr gpu::Form form = decltype(chosen)::value;
    const int warps = gpu::forward_warps(call.shape, call.structure);
    const auto plan = gpu::ForwardPlan::of<E, form>(gpu::key_limit(call.shape, call.structure), warps);
    run_grid(call.shape.sequences * call.shape.heads, warps * 32, plan.bytes, reverse, [&](int64_t block) {
      gpu::attention_forward<T, E, form>(call, plan, static_cast<int>(block / call.shape.heads),
                                         static_cast<int>(block % call.shape.heads));
    });
    return plan.bytes;
  });
}

void run_reduce(const float* partials, int64_t groups, int64_t width, float* out, bool reverse) {
  if (!out) return;
  const int64_t ctas = (width + gpu::kReduceColumns - 1) / gpu::kReduceColumns;
  run_grid(ctas, gpu::kReduceThreads, gpu::kReduceBytes, reverse,
           [&](int64_t block) { gpu::reduce_partials(partials, groups, width, out, block); });
}

template <class T, int E>
uint32_t run_backward(Case<T>& test, bool reverse) {
  const Backward<T, float>& call = test.backward();
  const Structure<float>& structure = call.structure;
  return gpu::visit_form(gpu::choose_form(call.shape, structure), [&](auto chosen) {
    constexpr gpu::Form form = decltype(chosen)::value;
    const gpu::BackwardPlan plan = gpu::plan_backward<T, E, form>(call, test.workspace());
    const int64_t heads = call.shape.heads;
    run_grid(plan.groups * heads, gpu::backward_warps<E, form>(call.shape, structure) * 32, plan.bytes,
             reverse, [&](int64_t block) {
               gpu::attention_backward<T, E, form>(call, plan, static_cast<int>(block / heads),
                                                   static_cast<int>(block % heads));
             });
    run_reduce(plan.column_partials, plan.groups, 3 * heads * E, call.columns, reverse);
    run_reduce(plan.joint_partials, plan.groups, heads * structure.joints * structure.joints,
               call.joint_gradient, reverse);
    run_reduce(plan.time_partials, plan.groups, heads * structure.offsets, call.time_gradient, reverse);
    return plan.bytes;
  });
}

struct SharedBytes {
  uint32_t forward, backward;
};

template <class T>
SharedBytes run(Case<T>& test, int size, bool reverse) {
  test.reset();
  if (size == 16) return {run_forward<T, 16>(test, reverse), run_backward<T, 16>(test, reverse)};
  if (size == 32) return {run_forward<T, 32>(test, reverse), run_backward<T, 32>(test, reverse)};
  return {run_forward<T, 64>(test, reverse), run_backward<T, 64>(test, reverse)};
}

// Rounding of the weights and of their gradients to 16 bits; with large logits that of the log-sum-exp too,
// with repeated ids that of each sum. A bias table's gradient sums rounded ones that nearly cancel.
template <class T>
double tolerance(const Options& options) {
  return (gpu::is_half<T> ? 7e-4 : 5e-3) * (options.spread > 1                               ? 8
                                            : options.bias || options.keep == Keep::repeated ? 2
                                                                                             : 1);
}

template <class T>
bool check(const Options& options, const char* dtype, bool verbose) {
  Case<T> test(options);
  emulator::counters() = {};
  const SharedBytes bytes = run(test, options.size, false);
  const double error = test.error(verbose);
  const std::vector<uint32_t> first = test.bits();
  run(test, options.size, true);
  const bool same = test.bits() == first;
  const emulator::Counters counters = emulator::counters();
  // Lanes that look up tables, masks and chains may collide; the plain kernels must not.
  const bool smooth = counters.bank_conflicts == 0 || options.bias || options.dropout;
  const bool right = error <= tolerance<T>(options) && same && counters.races == 0 && smooth;
  std::printf(
      "%s %s E=%d %-40s error %.1e, %lld races, %lld bank conflicts, shared memory %u and %u bytes%s\n",
      right ? "ok  " : "FAIL", dtype, options.size, options.name.c_str(), error,
      static_cast<long long>(counters.races), static_cast<long long>(counters.bank_conflicts), bytes.forward,
      bytes.backward, same ? "" : ", results depend on the schedule");
  std::fflush(stdout);
  return right;
}

// Known answers of the publication's library (Random123).
bool check_philox() {
  const oracle::Words zero = oracle::philox(0, {{0, 0, 0, 0}});
  const oracle::Words pi =
      oracle::philox(0x299F31D0A4093822u, {{0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}});
  const bool right = zero.word[0] == 0x6627E8D5 && zero.word[3] == 0x9B00DBD8 && pi.word[0] == 0xD16CFE09 &&
                     pi.word[1] == 0x94FDCCEB && pi.word[2] == 0x5001E420 && pi.word[3] == 0x24126EA1;
  std::printf("%s Philox-4x32-10 gives its known answers\n", right ? "ok  " : "FAIL");
  return right;
}

std::vector<Options> quick_cases() {
  std::vector<Options> cases(9);
  cases[0].name = "75 tokens, columns";
  cases[0].columns = true;
  cases[1].name = "cross 125 x 75, one of five layers";
  cases[1].queries = 125, cases[1].self = false, cases[1].heads = 1,
  cases[1].larger_buffer = cases[1].columns = true;
  cases[2].name = "counts 75, 31, 1, 0";
  cases[2].sequences = 4, cases[2].counts = {75, 31, 1, 0}, cases[2].heads = 1, cases[2].columns = true;
  cases[3].name = "keep";
  cases[3].keep = Keep::ascending, cases[3].heads = 1;
  cases[4].name = "keep with repeated ids, counts";
  cases[4].keep = Keep::repeated, cases[4].heads = 1, cases[4].sequences = 2, cases[4].counts = {75, 40};
  cases[5].name = "cu_seqlens";
  cases[5].lengths = {17, 0, 1, 33}, cases[5].heads = 2, cases[5].columns = true;
  cases[6].name = "bias, dropout, keep, counts";
  cases[6].queries = cases[6].keys = 33, cases[6].sequences = 3, cases[6].counts = {33, 20, 0};
  cases[6].keep = Keep::shuffled, cases[6].bias = cases[6].dropout = cases[6].columns = true;
  cases[7].name = "one token";
  cases[7].queries = cases[7].keys = 1, cases[7].heads = 1;
  cases[8].name = "cross 40 x 130";
  cases[8].queries = 40, cases[8].keys = 130, cases[8].heads = 1, cases[8].self = false;
  return cases;
}

std::vector<Options> thorough_cases() {
  std::vector<Options> cases;
  const auto add = [&](const std::string& name, int queries, int keys) -> Options& {
    Options options;
    options.name = name;
    options.queries = queries;
    options.keys = keys;
    options.self = queries == keys;
    options.heads = 1;
    cases.push_back(options);
    return cases.back();
  };
  for (int tokens : {15, 16, 17, 31, 33, 64, 65, 79, 80, 81, 159, 161}) {
    add(std::to_string(tokens) + " tokens", tokens, tokens).columns = true;
  }
  for (int keys : {1, 16, 74, 80}) add("cross 3 x " + std::to_string(keys), 3, keys);
  add("256 tokens", 256, 256).columns = true;
  add("cross 300 x 75", 300, 75).columns = true;
  add("cross 140 x 256, counts", 140, 256).counts = {100};
  {
    Options& o = add("cross 20 x 100, keep repeated, counts 0", 20, 100);
    o.sequences = 2, o.keep = Keep::repeated, o.counts = {90, 0}, o.columns = true;
  }
  {
    Options& o = add("150 tokens, keep repeated", 150, 150);
    o.keep = Keep::repeated, o.columns = true;
  }
  add("cu_seqlens 100, 5, 128", 75, 75).lengths = {100, 5, 128};
  {
    Options& o = add("cu_seqlens, dropout", 75, 75);
    o.lengths = {30, 85, 2}, o.dropout = true, o.heads = 2;
  }
  {
    Options& o = add("bias by given ids, cross 125 x 75", 125, 75);
    o.bias = o.ids = true, o.sequences = 2, o.heads = 2;
  }
  {
    Options& o = add("bias, 170 tokens in several blocks", 170, 170);
    o.bias = true;
  }
  add("dropout, 100 tokens", 100, 100).dropout = true;
  add("negative scale", 75, 75).scale = -0.3f;
  add("large logits", 75, 75).spread = 300;
  return cases;
}

// More sequences than CTAs of a head: a CTA takes several, one after the other.
Options many_sequences(bool columns) {
  Options options;
  options.name = columns ? "bias, many sequences" : "bias, many heads";
  options.queries = options.keys = columns ? 8 : 17;
  options.sequences = columns ? 1030 : 3;
  options.heads = columns ? 1 : 400;
  options.bias = true;
  options.columns = columns;
  return options;
}

}  // namespace
}  // namespace fastamr::test

int main(int count, char** arguments) {
  using namespace fastamr;
  if (count == 6 && !std::strcmp(arguments[1], "--philox")) {
    const auto number = [&](int i) { return std::strtoll(arguments[i], nullptr, 10); };
    const int64_t seed[2] = {number(2), number(3)};
    std::printf("%u\n", oracle::philox_word(seed, static_cast<uint32_t>(number(4)),
                                            static_cast<uint32_t>(number(5)), 4));
    return 0;
  }
  bool quick = false, verbose = false;
  const char* only = "";
  for (int i = 1; i < count; ++i) {
    if (!std::strcmp(arguments[i], "--quick")) {
      quick = true;
    } else if (!std::strcmp(arguments[i], "--verbose")) {
      verbose = true;
    } else {
      only = arguments[i];
    }
  }
  int failures = !test::check_philox(), checks = 1;
  const auto check = [&](test::Options options, int size, bool half) {
    if (!std::strstr(options.name.c_str(), only)) return;
    options.size = size;
    ++checks;
    failures += half ? !test::check<gpu::Half>(options, "fp16", verbose)
                     : !test::check<gpu::Bfloat16>(options, "bf16", verbose);
  };
  int position = 0;
  for (const test::Options& options : test::quick_cases()) {
    // The quick run takes each case once, with sizes and dtypes in turn.
    for (int size : {16, 32, 64}) {
      for (bool half : {false, true}) {
        const int turn = (size == 16 ? 2 : size == 32 ? 0 : 4) + half;
        if (!quick || position % 6 == turn) check(options, size, half);
      }
    }
    ++position;
  }
  if (!quick) {
    for (const test::Options& options : test::thorough_cases()) {
      for (int size : {16, 32, 64}) check(options, size, (size + position) % 3 == 0);
      ++position;
    }
    check(test::many_sequences(true), 16, false);
    check(test::many_sequences(false), 16, false);
  }
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures ? 1 : 0;
}
