// PyTorch's own state that an evaluation needs set, and set back behind it.
//
// What PyTorch forces on the process: its number of threads is one for all who use it, this library or Python's torch,
// and so is whether TF32 is allowed. Both are set for the length of an evaluation and then put back; somebody else who
// evaluates meanwhile sees them. The stream is a matter of the calling thread alone.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <string>

#include "placement.h"

namespace x2ct::torch {

/// The release, as the library itself says it: "2.13.0".
std::string version();

/// Opens the CUDA part of the runtime, where the library that is open has one beside it.
void open_cuda(void* runtime);

/// A symbol of the CUDA part or of what it is linked to, such as libc10_cuda.so; null where there is none.
void* cuda_symbol(const char* name);

/// Why there is no CUDA device to be had; "" where there is.
std::string flaw_of_cuda();

c10::Device device_of(const Place& place);

class Threads {
  public:
    explicit Threads(int wanted);  ///< 0 leaves them alone
    ~Threads();
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;

  private:
    int before_;
};

/// On a GPU, whether matrix products and convolutions may take TF32, which PyTorch asks for at each call.
class Tf32 {
  public:
    Tf32(const Place& place, bool allowed);
    ~Tf32();
    Tf32(const Tf32&) = delete;
    Tf32& operator=(const Tf32&) = delete;

  private:
    bool active_, cudnn_before_ = false, cublas_before_ = false;
};

/// The caller's CUDA stream as PyTorch's current one.
c10::Stream stream_of(const Place& place, void* stream);

/// Waits for what the current stream of a GPU has been given.
void wait_for(const Place& place);

}  // namespace x2ct::torch
