#include "core/registers.h"

#include <algorithm>

namespace x2ct {
namespace {

RowKernel::Weights weights(const Combination& c) {
    RowKernel::Weights w;
    w.x = static_cast<float>(c.x);
    w.y = static_cast<float>(c.y);
    for (int k = 0; k < kHistory; ++k) w.h[k] = static_cast<float>(c.h[k]);
    w.noise = static_cast<float>(c.noise);
    return w;
}

// The step to sigma 0 of most solvers.
bool is_denoised(const Row& row) { return row.a == 0 && row.b == 1 && row.x == Combination{.h = {1}}; }

bool reads_x(const Row& row) { return row.x.x != 0 || row.y.x != 0; }

// Whether a row after `row` looks back at the H0 made there.
bool is_remembered(const Table& table, int row) {
    const auto& rows = table.rows();
    for (int k = 1; k < kHistory && row + k < table.evaluations(); ++k) {
        const Row& later = rows[row + k];
        const bool last = row + k + 1 == table.evaluations();
        if (later.x.h[k] != 0 || (!last && later.y.h[k] != 0)) return true;
    }
    return false;
}

}  // namespace

Registers::Registers(const std::shared_ptr<Device>& device, const Table& table, std::int64_t count, std::uint64_t seed,
                     std::uint32_t sample)
    : table_(table), count_(count), seed_(seed), sample_(sample), y_(device, static_cast<std::size_t>(count)) {
    if (table.uses_x()) x_ = Buffer(device, y_.count());
    for (int k = 0; k <= table.history(); ++k) ring_.emplace_back(device, y_.count());
}

// H_k of `row`: what `row - k` left behind. They are a ring: the network writes D over the oldest, and H0 takes D's
// place, most often being D.
float* Registers::h(int row, int k) const { return ring_[static_cast<std::size_t>(row - k) % ring_.size()].data(); }

RowKernel Registers::kernel(std::uint32_t draw) const {
    RowKernel kernel;
    kernel.count = count_;
    kernel.x = x_.data();
    kernel.y = y_.data();
    kernel.noise = {seed_, draw, sample_};
    return kernel;
}

std::vector<RowKernel> Registers::start() const {
    const Row& first = table_.rows().front();
    std::vector<RowKernel> kernels = {kernel(0)};
    kernels[0].new_y = y_.data();
    kernels[0].to_y.noise = static_cast<float>(first.input_scale * table_.start_scale());
    if (table_.start_noise() != 0) {
        RowKernel& more = kernels.emplace_back(kernel(1));
        more.to_y.y = 1;
        more.to_y.noise = static_cast<float>(first.input_scale * table_.start_noise());
        more.new_y = y_.data();
    }
    if (reads_x(first)) {
        RowKernel& copy = kernels.emplace_back(kernel(0));
        copy.to_x.y = static_cast<float>(1 / first.input_scale);
        copy.new_x = x_.data();
    }
    return kernels;
}

// What no later row reads is not written; the last x' goes to y, which is free by then.
RowKernel Registers::step(int row) const {
    const Row& now = table_.rows()[row];
    const bool last = row + 1 == table_.evaluations();
    if (last && is_denoised(now)) {
        RowKernel none;
        none.row = row;
        return none;
    }
    RowKernel step = kernel(now.draw);
    step.row = row;
    step.denoised = denoised(row);
    for (int k = 1; k <= std::min(row, table_.history()); ++k) step.h[k] = h(row, k);
    step.a = static_cast<float>(now.a);
    step.b = static_cast<float>(now.b);
    if (last) {
        step.to_x = weights(now.x);
        step.new_x = y_.data();
    } else {
        step.to_y = weights(now.y);
        step.new_y = y_.data();
        if (reads_x(table_.rows()[row + 1])) {
            step.to_x = weights(now.x);
            step.new_x = x_.data();
        }
    }
    if (is_remembered(table_, row)) step.new_h = h(row, 0);
    return step;
}

// A last row that ends at D has not been stepped from.
float* Registers::result() const {
    return is_denoised(table_.rows().back()) ? denoised(table_.evaluations() - 1) : y_.data();
}

void Registers::keep_result() {
    const auto drop = [kept = result()](Buffer& buffer) {
        if (buffer.data() != kept) buffer = Buffer();
    };
    drop(x_), drop(y_);
    std::ranges::for_each(ring_, drop);
}

std::string Registers::key() const {
    std::string text = key_of(x_) + key_of(y_);
    for (const Buffer& one : ring_) text += key_of(one);
    return text;
}

}  // namespace x2ct
