#include "x2ct/sampler.h"

#include <algorithm>
#include <exception>
#include <vector>

#include "core/stopwatch.h"
#include "x2ct/error.h"

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

// What the network is told of the noise, by row.
std::vector<float> levels(const Table& table) {
    std::vector<float> sigmas;
    for (const Row& row : table.rows()) sigmas.push_back(static_cast<float>(row.sigma));
    return sigmas;
}

void check_at_once(const RunOptions& options) {
    if (options.progress || options.preview || options.pause || options.cancel != nullptr || options.correction) {
        throw InputError("at_once: found callbacks, a cancel token or a correction, expected none");
    }
}

// However a run ends, nothing of it is left in the device's queue.
class Drained {
  public:
    explicit Drained(Device& device) : device_(device) {}
    Drained(const Drained&) = delete;
    Drained& operator=(const Drained&) = delete;
    ~Drained() {
        if (std::uncaught_exceptions() > before_) device_.drain();
    }

  private:
    Device& device_;
    int before_ = std::uncaught_exceptions();
};

}  // namespace

// The volumes of one run, and no more of them than the table uses.
struct Sampler::Registers {
    Registers(const std::shared_ptr<Device>& device, const Table& table, std::size_t count) : y(device, count) {
        if (table.uses_x()) x = Buffer(device, count);
        for (int k = 0; k <= table.history(); ++k) ring.emplace_back(device, count);
    }

    // D of `row`, and H_k of it: what `row - k` left behind. They are a ring: the network writes D over the oldest, and
    // H0 takes D's place, most often being D.
    float* denoised(int row) const { return h(row, 0); }
    float* h(int row, int k) const { return ring[static_cast<std::size_t>(row - k) % ring.size()].data(); }

    // Where they lie.
    std::string key() const {
        std::string text = key_of(x) + key_of(y);
        for (const Buffer& one : ring) text += key_of(one);
        return text;
    }

    // Before the result is copied, so that a large volume needs no more memory then than in the loop.
    void keep_only(const float* result) {
        const auto drop = [result](Buffer& buffer) {
            if (buffer.data() != result) buffer = Buffer();
        };
        drop(x), drop(y);
        std::ranges::for_each(ring, drop);
    }

    Buffer x, y;
    std::vector<Buffer> ring;
};

Sampler::Sampler(std::shared_ptr<Network> denoiser, std::shared_ptr<Device> device, Shape shape)
    : Sampler(whole_evaluator(std::move(denoiser), device, std::move(shape)), device) {}

Sampler::Sampler(std::unique_ptr<Evaluator> evaluator, std::shared_ptr<Device> device)
    : evaluator_(std::move(evaluator)), device_(std::move(device)), count_(volume_of(evaluator_->shape())) {}

std::unique_lock<std::mutex> Sampler::enter() const {
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) throw Error("sampler: busy: a run is going on; wait for it, or make a second sampler");
    return lock;
}

void Sampler::set_condition(const std::string& name, const float* data, const Shape& shape) {
    const auto lock = enter();
    evaluator_->set_condition(name, data, shape);
}

void Sampler::set_lifted(std::vector<Lift::Whole> conditions) {
    const auto lock = enter();
    evaluator_->set_lifted(std::move(conditions));
}

void Sampler::set_lift(std::shared_ptr<Lift> lift) {
    const auto lock = enter();
    evaluator_->set_lift(std::move(lift));
}

void Sampler::run(const Table& table, const RunOptions& options, float* out) {
    const auto lock = enter();
    const Stopwatch total;
    if (options.preview_every < 1) {
        throw InputError("preview_every: found " + std::to_string(options.preview_every) + ", expected 1 or more");
    }
    const bool corrected_there = options.correction && options.correction->works_on(device_);
    const std::int64_t waited = device_->waits();
    evaluator_->prepare(levels(table));
    Registers registers(device_, table, static_cast<std::size_t>(count_));
    const int rows = table.evaluations();
    std::vector<RowKernel> steps;
    steps.reserve(static_cast<std::size_t>(rows));
    for (int row = 0; row < rows; ++row) steps.push_back(step(table, row, options, registers));
    device_->begin(steps);

    Timings timings;
    const Drained drained(*device_);
    timed(timings.kernel_s, [&] { start(table, options, registers); });
    const auto pause = [&] {
        if (options.cancel != nullptr && *options.cancel) throw Cancelled("cancelled");
        if (options.pause) options.pause();
    };
    const auto is_shown = [&](int row) { return options.preview && (row + 1) % options.preview_every == 0; };
    std::vector<float> shown;
    const auto evaluate = [&](int row) {
        float* const denoised = registers.denoised(row);
        evaluator_->evaluate(row, registers.y.data(), denoised, pause, timings);
        if (options.correction) {
            timed(timings.correction_s, [&] { correct(*options.correction, corrected_there, row, table, denoised); });
        }
        if (is_shown(row)) {
            shown.resize(static_cast<std::size_t>(count_));
            device_->download(shown.data(), denoised, shown.size());
        }
        if (steps[row].count > 0) timed(timings.kernel_s, [&] { device_->run(steps[row]); });
    };
    int told = 0;
    const auto tell = [&](int until) {
        for (; told < until; ++told) {
            device_->wait(told);
            const Progress now{told + 1, rows, table.rows()[told].sigma};
            if (is_shown(told)) options.preview(now, shown.data());
            if (options.progress) options.progress(now);
        }
    };
    if (options.at_once) {
        check_at_once(options);
        device_->row(rows - 1, key(registers, table, rows), [&] {
            for (int row = 0; row < rows; ++row) evaluate(row);
        });
    } else {
        const bool queues = !options.correction && !options.preview;
        for (int row = 0; row < rows; ++row) {
            pause();
            device_->row(row, queues ? key(registers, table, row) : "", [&] { evaluate(row); });
            tell(row + 1 - (queues ? device_->ahead() : 0));
        }
        tell(rows);
    }
    // A last row that ends at D has not been stepped from.
    const float* const result = is_denoised(table.rows().back()) ? registers.denoised(rows - 1) : registers.y.data();
    registers.keep_only(result);
    device_->download(out, result, static_cast<std::size_t>(count_));
    timings.evaluations = rows;
    if (const auto times = device_->times()) {
        timings.kernel_s = times->kernels_s;
        timings.network_s = times->rows_s - times->kernels_s;
        timings.gap_s = times->gap_s;
    }
    timings.waits = device_->waits() - waited;
    timings.total_s = total.seconds();
    timings_ = timings;
}

// A correction that doesn't work on the device gets D on the host, and what it makes of it goes back.
void Sampler::correct(Correction& correction, bool there, int row, const Table& table, float* denoised) {
    const double sigma = table.rows()[row].sigma;
    if (there) {
        correction.apply(row, table.evaluations(), sigma, denoised);
        return;
    }
    std::vector<float> copy(static_cast<std::size_t>(count_));
    device_->download(copy.data(), denoised, copy.size());
    correction.apply(row, table.evaluations(), sigma, copy.data());
    device_->upload(denoised, copy.data(), copy.size());
}

// What the device may know `row` by, and all rows by their number; empty where an evaluation does more than queue.
std::string Sampler::key(const Registers& registers, const Table& table, int row) const {
    const std::string evaluation = evaluator_->key();
    if (evaluation.empty()) return "";
    return table.solver() + " " + std::to_string(table.evaluations()) + " row " + std::to_string(row) + " " +
           registers.key() + " " + evaluation;
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

// The row's linear combinations, none where the last row ends at D. What no later row reads is not written; the last x'
// goes to y, which is free by then.
RowKernel Sampler::step(const Table& table, int row, const RunOptions& options, const Registers& registers) const {
    const Row& now = table.rows()[row];
    const bool last = row + 1 == table.evaluations();
    RowKernel kernel;
    kernel.row = row;
    if (last && is_denoised(now)) return kernel;
    kernel.count = count_;
    kernel.x = registers.x.data();
    kernel.y = registers.y.data();
    kernel.denoised = registers.denoised(row);
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
    return kernel;
}

Timings Sampler::timings() const {
    const auto lock = enter();
    return timings_;
}

}  // namespace x2ct
