#include "x2ct/sampler.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <vector>

#include "core/parallel.h"
#include "core/registers.h"
#include "core/stopwatch.h"
#include "kernels/ray_kernel.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr std::int64_t kGrain = 1 << 15;

}  // namespace

void Ensemble::add(const float* volume) {
    ++samples_;
    const auto number = static_cast<float>(samples_);
    parallel_for(count_, kGrain, 1, threads_, [&](std::int64_t begin, std::int64_t end) {
        if (samples_ == 1) {
            std::copy(volume + begin, volume + end, mean_ + begin);
            if (squares_ != nullptr) std::fill(squares_ + begin, squares_ + end, 0.0F);
            return;
        }
        for (std::int64_t i = begin; i < end; ++i) {
            const float off = volume[i] - mean_[i];
            mean_[i] += off / number;
            if (squares_ != nullptr) squares_[i] += off * (volume[i] - mean_[i]);
        }
    });
}

void Ensemble::finish(float scale) {
    if (squares_ == nullptr) return;
    const auto number = static_cast<float>(std::max(1, samples_ - 1));
    parallel_for(count_, kGrain, 1, threads_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) squares_[i] = scale * std::sqrt(squares_[i] / number);
    });
}

namespace {

// What the network is told of the noise, by row.
std::vector<float> levels(const Table& table) {
    std::vector<float> sigmas;
    for (const Row& row : table.rows()) sigmas.push_back(static_cast<float>(row.sigma));
    return sigmas;
}

void check(const RunOptions& options) {
    if (options.preview_every < 1) {
        throw InputError("preview_every: found " + std::to_string(options.preview_every) + ", expected 1 or more");
    }
    const bool asks = options.progress || options.preview || options.pause || options.cancel || options.correction;
    if (options.at_once && asks) {
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

// One run: its registers, its rows' kernels, and what has been told of it.
class Run {
  public:
    Run(Evaluator& evaluator, const std::shared_ptr<Device>& device, std::int64_t count, const Table& table,
        const RunOptions& options)
        : evaluator_(evaluator),
          shared_(device),
          device_(*device),
          table_(table),
          options_(options),
          count_(static_cast<std::size_t>(count)),
          rows_(table.evaluations()),
          registers_(device, table, count, options.seed, options.sample),
          corrected_there_(options.correction && options.correction->works_on(device)) {
        for (int row = 0; row < rows_; ++row) steps_.push_back(registers_.step(row));
    }

    // Leaves the result in the registers.
    void sample() {
        device_.begin(steps_);
        const Drained drained(device_);
        timed(timings_.kernel_s, [&] {
            for (const RowKernel& kernel : registers_.start()) device_.run(kernel);
        });
        options_.at_once ? at_once() : row_by_row();
    }

    Timings finish(float* out) {
        registers_.keep_result();
        hand_out(out);
        timings_.evaluations = rows_;
        if (const auto times = device_.times()) {
            timings_.kernel_s = times->kernels_s;
            timings_.network_s = times->rows_s - times->kernels_s;
            timings_.gap_s = times->gap_s;
        }
        return timings_;
    }

  private:
    // In HU it is made in place, by the device.
    void hand_out(float* out) {
        float* const result = registers_.result();
        const auto count = static_cast<std::int64_t>(count_);
        if (options_.result_in == nullptr) return device_.download(out, result, count_);
        if (device_.stream() == nullptr) return options_.result_in->to_hu(result, out, count, options_.threads);
        const auto& [hu, x] = *options_.result_in;
        std::vector<double> both = x;
        both.insert(both.end(), hu.begin(), hu.end());
        const Buffer there = doubles_on(shared_, both);
        const auto* const knots = reinterpret_cast<const double*>(there.data());
        device_.run(RayKernel{
            kernels::ToHu{{{count}, knots, knots + x.size(), static_cast<int>(x.size()), result, nullptr, result}}});
        device_.download(out, result, count_);
    }

    void at_once() {
        device_.row(rows_ - 1, key(rows_), [&] {
            for (int row = 0; row < rows_; ++row) evaluate(row);
        });
    }

    // What is told of a row is behind by as many as the device may queue; what looks into a row's volume queues none.
    void row_by_row() {
        const bool queues = !options_.correction && !options_.preview;
        const int behind = queues ? device_.ahead() : 0;
        for (int row = 0; row < rows_; ++row) {
            pause();
            device_.row(row, queues ? key(row) : "", [&] { evaluate(row); });
            tell(row + 1 - behind);
        }
        tell(rows_);
    }

    void evaluate(int row) {
        float* const denoised = registers_.denoised(row);
        evaluator_.evaluate(row, registers_.y(), denoised, [&] { pause(); }, timings_);
        if (options_.correction) timed(timings_.correction_s, [&] { correct(row, denoised); });
        if (is_shown(row)) show(row, denoised);
        if (steps_[row].count > 0) timed(timings_.kernel_s, [&] { device_.run(steps_[row]); });
    }

    // A correction that doesn't work on the device gets D on the host, and what it makes of it goes back.
    void correct(int row, float* denoised) {
        const double sigma = table_.rows()[row].sigma;
        if (corrected_there_) {
            options_.correction->apply(row, rows_, sigma, denoised);
            return;
        }
        std::vector<float> copy(count_);
        device_.download(copy.data(), denoised, count_);
        options_.correction->apply(row, rows_, sigma, copy.data());
        device_.upload(denoised, copy.data(), count_);
    }

    void pause() const {
        if (options_.cancel != nullptr && *options_.cancel) throw Cancelled("cancelled");
        if (options_.pause) options_.pause();
    }

    // Before the row's step, which may overwrite D.
    void show(int row, const float* denoised) {
        if (device_.stream() != nullptr) {
            copy_.resize(count_);
            device_.download(copy_.data(), denoised, count_);
            denoised = copy_.data();
        }
        options_.preview(progress(row), denoised);
    }

    bool is_shown(int row) const { return options_.preview && (row + 1) % options_.preview_every == 0; }

    Progress progress(int row) const { return {row + 1, rows_, table_.rows()[row].sigma}; }

    void tell(int until) {
        for (; told_ < until; ++told_) {
            device_.wait(told_);
            if (options_.progress) options_.progress(progress(told_));
        }
    }

    // What the device may know `row` by, and all rows by their number; empty where an evaluation does more than queue.
    std::string key(int row) const {
        const std::string evaluation = evaluator_.key();
        if (evaluation.empty()) return "";
        return table_.solver() + " " + std::to_string(rows_) + " row " + std::to_string(row) + " " + registers_.key() +
               " " + evaluation;
    }

    Evaluator& evaluator_;
    const std::shared_ptr<Device>& shared_;
    Device& device_;
    const Table& table_;
    const RunOptions& options_;
    const std::size_t count_;
    const int rows_;
    Registers registers_;
    const bool corrected_there_;  // asked after the registers have their places, which its own memory must not take
    std::vector<RowKernel> steps_;
    std::vector<float> copy_;
    Timings timings_;
    int told_ = 0;
};

}  // namespace

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
    const std::int64_t waited = device_->waits();
    check(options);
    evaluator_->prepare(levels(table));
    Run run(*evaluator_, device_, count_, table, options);
    run.sample();
    Timings timings = run.finish(out);
    timings.waits = device_->waits() - waited;
    timings.total_s = total.seconds();
    timings_ = timings;
}

Timings Sampler::timings() const {
    const auto lock = enter();
    return timings_;
}

}  // namespace x2ct
