// A run's volumes, and what each row of its table does with them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "x2ct/device.h"
#include "x2ct/table.h"

namespace x2ct {

/// The volumes that a table uses, and no more of them. The table must outlive them.
class Registers {
  public:
    /// `count` voxels each; `seed` and `sample` are those of the noise. Throws OutOfMemory.
    Registers(const std::shared_ptr<Device>& device, const Table& table, std::int64_t count, std::uint64_t seed,
              std::uint32_t sample);

    /// What the network is given.
    const float* y() const { return y_.data(); }
    /// Where the network writes D in `row`.
    float* denoised(int row) const { return h(row, 0); }

    /// y = start_scale n0 (+ start_noise n1), and x the same where the first row reads it.
    std::vector<RowKernel> start() const;
    /// The row's linear combinations; without voxels where the last row ends at D.
    RowKernel step(int row) const;

    /// What the last row leaves.
    float* result() const;
    /// Releases all others, so that copying the result of a large volume needs no more memory than the loop.
    void keep_result();

    /// Where they lie, for keys of recorded work.
    std::string key() const;

  private:
    float* h(int row, int k) const;
    RowKernel kernel(std::uint32_t draw) const;

    const Table& table_;
    std::int64_t count_;
    std::uint64_t seed_;
    std::uint32_t sample_;
    Buffer x_, y_;
    std::vector<Buffer> ring_;
};

}  // namespace x2ct
