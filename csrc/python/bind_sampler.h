// What Python holds of the sampling loop.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "bind.h"
#include "x2ct/sampler.h"

namespace x2ct::python {

struct CancelToken {
    std::atomic<bool> cancelled{false};
};

/// A sampler of the bundled networks: one volume [X, Y, Z], x of shape [1, 1, X, Y, Z].
class PySampler {
  public:
    explicit PySampler(std::shared_ptr<Sampler> sampler);

    void set_condition(const pybind11::dict& arrays);

    pybind11::array_t<float> run(const Table& table, std::uint64_t seed, std::uint32_t sample,
                                 const pybind11::object& progress, const std::shared_ptr<CancelToken>& cancel,
                                 const pybind11::object& preview, int preview_every,
                                 const std::optional<Knots>& preview_in, const std::shared_ptr<Correction>& correction,
                                 const std::optional<Knots>& result_in, bool at_once);

    const Shape& shape() const { return shape_; }
    Timings timings() const { return sampler_->timings(); }

  private:
    Shape shape_;
    std::shared_ptr<Sampler> sampler_;
};

}  // namespace x2ct::python
