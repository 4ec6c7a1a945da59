// Files that are mapped into memory: if one is cut short while it is read, the process ends with a line that names it,
// not with a bus error alone. The handler calls only what a signal handler may call.
#include <torch/csrc/stable/library.h>

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <mutex>

#include "torch_tensors.h"

namespace fastamr {
namespace {

constexpr int kFiles = 64, kLongest = 4096;

// A mapped range and its file. The text is "PATH\0LINE": what is printed is the line.
struct Mapping {
  const char* begin = nullptr;
  const char* end = nullptr;
  off_t size = 0;
  char text[kLongest] = {};
  size_t path = 0, line = 0;
};

Mapping mappings[kFiles];
std::atomic<int> count{0};
struct sigaction before = {};

void on_bus_error(int number, siginfo_t* info, void*) {
  const char* address = static_cast<const char*>(info->si_addr);
  const int found = count.load();
  for (int i = 0; i < found && i < kFiles; ++i) {
    const Mapping& mapping = mappings[i];
    struct stat now;
    if (address < mapping.begin || address >= mapping.end) continue;
    if (stat(mapping.text, &now) == 0 && now.st_size >= mapping.size) continue;  // memory of a file that is whole
    const ssize_t written = write(STDERR_FILENO, mapping.text + mapping.path + 1, mapping.line);
    _exit(written < 0 ? 2 : 1);
  }
  // Another's: the instruction runs again, and meets the handler that was there before.
  sigaction(number, &before, nullptr);
}

// Begin to watch `bytes` from an address; text is uint8, "PATH\0LINE\n". The oldest is forgotten where there are many.
void watch_mapping(int64_t address, int64_t bytes, int64_t size, const Tensor& text) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  const int64_t length = text.numel();
  STD_TORCH_CHECK(text.is_cpu() && text.is_contiguous() && text.scalar_type() == ScalarType::Byte && length < kLongest,
                  "text must be a short CPU tensor of bytes");
  static int next = 0;
  Mapping& mapping = mappings[next];
  mapping.begin = mapping.end = nullptr;
  std::memcpy(mapping.text, text.const_data_ptr(), static_cast<size_t>(length));
  mapping.text[length] = 0;
  mapping.path = std::strlen(mapping.text);
  mapping.line = mapping.path < static_cast<size_t>(length) ? static_cast<size_t>(length) - mapping.path - 1 : 0;
  mapping.size = size;
  mapping.begin = reinterpret_cast<const char*>(address);
  mapping.end = mapping.begin + bytes;
  next = (next + 1) % kFiles;
  if (count.load() < kFiles) ++count;
  static bool installed = false;
  if (installed) return;
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  installed = sigaction(SIGBUS, &action, &before) == 0;
}

}  // namespace
}  // namespace fastamr

STABLE_TORCH_LIBRARY_FRAGMENT(fastamr_native, m) {
  m.def("watch_mapping(int address, int bytes, int size, Tensor text) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastamr_native, CPU, m) {
  m.impl("watch_mapping", TORCH_BOX(&fastamr::watch_mapping));
}
