#include "x2ct/sampler.h"

#include <algorithm>
#include <chrono>

#include "x2ct/error.h"

namespace x2ct {
namespace {

class Stopwatch {
  public:
    double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  private:
    using Clock = std::chrono::steady_clock;
    Clock::time_point start_ = Clock::now();
};

const TensorInfo* find(const std::vector<TensorInfo>& tensors, const std::string& name) {
    const auto found = std::ranges::find(tensors, name, &TensorInfo::name);
    return found == tensors.end() ? nullptr : &*found;
}

std::string names(const std::vector<TensorInfo>& tensors) {
    std::string text;
    for (const auto& tensor : tensors) text += (text.empty() ? "" : ", ") + tensor.name;
    return text;
}

// Whether a tensor of `shape` can go where `declared` is asked for; -1 is any size.
bool fits(const Shape& shape, const Shape& declared) {
    return std::ranges::equal(shape, declared, [](std::int64_t a, std::int64_t b) { return b < 0 || a == b; });
}

void check_tensor(const std::vector<TensorInfo>& tensors, const char* kind, const std::string& name,
                  const Shape& shape) {
    const TensorInfo* tensor = find(tensors, name);
    if (tensor == nullptr) {
        throw InputError(std::string("denoiser: ") + kind + ": found " + names(tensors) + ", expected one named " +
                         name);
    }
    if (!fits(shape, tensor->shape)) {
        throw InputError("denoiser: " + name + ": found shape " + to_string(shape) + ", expected " +
                         to_string(tensor->shape));
    }
}

RowKernel::Weights weights(const Combination& c) {
    RowKernel::Weights w;
    w.x = static_cast<float>(c.x);
    w.y = static_cast<float>(c.y);
    for (int k = 0; k < kHistory; ++k) w.h[k] = static_cast<float>(c.h[k]);
    w.noise = static_cast<float>(c.noise);
    return w;
}

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

// The volumes of one run, and no more of them than the table uses.
struct Sampler::Registers {
    Registers(const std::shared_ptr<Device>& device, const Table& table, std::size_t count, std::size_t sigmas)
        : y(device, count), denoised(device, count), sigma(device, sigmas) {
        if (table.uses_x()) x = Buffer(device, count);
        for (int k = 0; k < table.history(); ++k) history.emplace_back(device, count);
    }

    // H_k of `row`: what `row - k` left behind. The history is a ring; H0 goes where the oldest was.
    float* h(int row, int k) const { return history[(row - k) % history.size()].data(); }

    Buffer x, y, denoised, sigma;
    std::vector<Buffer> history;
};

Sampler::Sampler(std::shared_ptr<Network> denoiser, std::shared_ptr<Device> device, Shape shape)
    : denoiser_(std::move(denoiser)), device_(std::move(device)), shape_(std::move(shape)), count_(volume_of(shape_)) {
    if (shape_.empty() || std::ranges::any_of(shape_, [](std::int64_t axis) { return axis < 1; })) {
        throw InputError("sampler: shape: found " + to_string(shape_) + ", expected sizes of at least 1");
    }
    if (denoiser_->device() != device_->name()) {
        throw InputError("sampler: device: found a network on " + denoiser_->device() + ", expected one on " +
                         device_->name());
    }
    sigma_shape_ = {shape_.front()};
    check_tensor(denoiser_->inputs(), "inputs", "x", shape_);
    check_tensor(denoiser_->inputs(), "inputs", "sigma", sigma_shape_);
    check_tensor(denoiser_->outputs(), "outputs", "denoised", shape_);
}

std::unique_lock<std::mutex> Sampler::enter() const {
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) throw Error("sampler: busy: a run is going on; wait for it, or make a second sampler");
    return lock;
}

Session& Sampler::session() {
    if (!session_) session_ = denoiser_->session();
    return *session_;
}

void Sampler::set_condition(const std::string& name, const float* data, const Shape& shape) {
    const auto lock = enter();
    if (name == "x" || name == "sigma")
        throw InputError("condition: found " + name + ", which the sampler sets itself");
    check_tensor(denoiser_->inputs(), "inputs", name, shape);
    const auto count = static_cast<std::size_t>(volume_of(shape));
    Condition& condition = conditions_[name];
    if (condition.buffer.count() != count) condition.buffer = Buffer(device_, count);
    condition.shape = shape;
    device_->upload(condition.buffer.data(), data, count);
}

void Sampler::check_conditions() const {
    for (const auto& input : denoiser_->inputs()) {
        if (input.name != "x" && input.name != "sigma" && !conditions_.contains(input.name)) {
            throw InputError("sampler: condition " + input.name + ": found none, expected " + to_string(input.shape) +
                             "; call set_condition before run");
        }
    }
}

void Sampler::run(const Table& table, const RunOptions& options, float* out) {
    const auto lock = enter();
    const Stopwatch total;
    check_conditions();
    Registers registers(device_, table, static_cast<std::size_t>(count_), static_cast<std::size_t>(sigma_shape_[0]));
    Session& network = session();
    for (const auto& [name, condition] : conditions_) network.set_input(name, condition.buffer.data(), condition.shape);
    network.set_input("x", registers.y.data(), shape_);
    network.set_input("sigma", registers.sigma.data(), sigma_shape_);
    network.set_output("denoised", registers.denoised.data(), shape_);

    Timings timings;
    const auto timed = [](double& seconds, const auto& work) {
        const Stopwatch watch;
        work();
        seconds += watch.seconds();
    };
    timed(timings.kernel_s, [&] { start(table, options, registers); });
    std::vector<float> sigmas(sigma_shape_[0]);
    for (int row = 0; row < table.evaluations(); ++row) {
        if (options.cancel != nullptr && *options.cancel) throw Cancelled("cancelled");
        const double sigma = table.rows()[row].sigma;
        std::ranges::fill(sigmas, static_cast<float>(sigma));
        device_->upload(registers.sigma.data(), sigmas.data(), sigmas.size());
        timed(timings.network_s, [&] { network.evaluate(); });
        timed(timings.kernel_s, [&] { step(table, row, options, registers); });
        if (options.progress) options.progress({row + 1, table.evaluations(), sigma});
    }
    device_->download(out, registers.y.data(), static_cast<std::size_t>(count_));
    timings.evaluations = table.evaluations();
    timings.total_s = total.seconds();
    timings_ = timings;
}

// y = start_scale n0 (+ start_noise n1), and x the same where the first row reads it.
void Sampler::start(const Table& table, const RunOptions& options, Registers& registers) {
    const Row& first = table.rows().front();
    RowKernel kernel;
    kernel.count = count_;
    kernel.noise = {options.seed, 0, options.sample};
    kernel.new_y = registers.y.data();
    kernel.to_y.noise = static_cast<float>(first.input_scale * table.start_scale());
    device_->run(kernel);
    if (table.start_noise() != 0) {
        kernel.y = registers.y.data();
        kernel.noise.draw = 1;
        kernel.to_y.y = 1;
        kernel.to_y.noise = static_cast<float>(first.input_scale * table.start_noise());
        device_->run(kernel);
    }
    if (reads_x(first)) {
        RowKernel copy;
        copy.count = count_;
        copy.y = registers.y.data();
        copy.to_x.y = static_cast<float>(1 / first.input_scale);
        copy.new_x = registers.x.data();
        device_->run(copy);
    }
}

// The row's linear combinations. What no later row reads is not written; the last x' goes to y, which is free by then.
void Sampler::step(const Table& table, int row, const RunOptions& options, Registers& registers) {
    const Row& now = table.rows()[row];
    const bool last = row + 1 == table.evaluations();
    RowKernel kernel;
    kernel.count = count_;
    kernel.x = registers.x.data();
    kernel.y = registers.y.data();
    kernel.denoised = registers.denoised.data();
    for (int k = 1; k <= std::min(row, table.history()); ++k) kernel.h[k] = registers.h(row, k);
    kernel.a = static_cast<float>(now.a);
    kernel.b = static_cast<float>(now.b);
    kernel.noise = {options.seed, now.draw, options.sample};
    if (last) {
        kernel.to_x = weights(now.x);
        kernel.new_x = registers.y.data();
    } else {
        kernel.to_y = weights(now.y);
        kernel.new_y = registers.y.data();
        if (reads_x(table.rows()[row + 1])) {
            kernel.to_x = weights(now.x);
            kernel.new_x = registers.x.data();
        }
    }
    if (is_remembered(table, row)) kernel.new_h = registers.h(row, 0);
    device_->run(kernel);
}

Timings Sampler::timings() const {
    const auto lock = enter();
    return timings_;
}

}  // namespace x2ct
