// PyTorch's GPU memory for what a device records. A CUDA graph reads and writes where it did when it was recorded: as
// long as it may be replayed, nobody else may be given that memory. No types of PyTorch.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "placement.h"

namespace x2ct::torch {

/// The calls of PyTorch's caching allocator that concern one private pool, on one GPU.
class PoolCalls {
  public:
    virtual ~PoolCalls() = default;
    virtual void begin() = 0;    ///< What the stream allocates comes from the pool; the pool has one more user.
    virtual void end() = 0;      ///< No longer. What was allocated returns to the pool when it is freed.
    virtual void release() = 0;  ///< The pool has one user less.
    virtual void empty() = 0;    ///< Returns the memory of a pool without users to the driver.
};

/// A private pool with one user: it keeps its memory from the first evaluation until it is destroyed.
class Pool {
  public:
    explicit Pool(std::unique_ptr<PoolCalls> calls) : calls_(std::move(calls)) {}
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    ~Pool() {
        if (!is_used_) return;
        try {
            calls_->release();
            calls_->empty();
        } catch (...) {
            return;  // the driver is going down, and its memory with it
        }
    }

    /// Runs `work`, whose allocations on the pool's stream come from the pool. Whoever records has run it once before.
    void within(const std::function<void()>& work) {
        calls_->begin();
        try {
            work();
        } catch (...) {
            finish();
            throw;
        }
        finish();
    }

  private:
    void finish() {
        calls_->end();
        if (std::exchange(is_used_, true)) calls_->release();
    }

    std::unique_ptr<PoolCalls> calls_;
    bool is_used_ = false;
};

/// A pool for a CUDA stream; null on the CPU, and where the backend was built without CUDA's headers.
std::unique_ptr<Pool> private_pool(const Place& place, void* stream);

}  // namespace x2ct::torch
