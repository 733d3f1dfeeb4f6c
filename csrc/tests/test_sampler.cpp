// The loop: it does what the table says, whatever the table; the same bits every time; and it outlives its errors.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "check.h"
#include "reference.h"
#include "x2ct/error.h"
#include "x2ct/sampler.h"
#include "x2ct/schedule.h"

namespace {

using reference::FunctionNetwork;
using reference::Gaussian;
using x2ct::RunOptions;
using x2ct::Sampler;
using x2ct::Table;

// More than one thread's piece, and no multiple of anything.
x2ct::Shape some_shape() { return {1, 1, 40, 41, 43}; }
constexpr Gaussian kData{0.3, 0.5};

Sampler sampler(const reference::Denoiser& denoiser, int threads = 2, const x2ct::Shape& shape = some_shape()) {
    return Sampler(std::make_shared<FunctionNetwork>(denoiser, shape), x2ct::cpu_device(threads), shape);
}

std::vector<float> run(Sampler& one, const Table& table, const RunOptions& options = {}) {
    std::vector<float> out(static_cast<std::size_t>(x2ct::volume_of(one.shape())));
    one.run(table, options, out.data());
    return out;
}

Table usual(const std::string& solver = "heun", double churn = 5) {
    return x2ct::make_table(solver, x2ct::schedule("edm", 5, 0.03, 20), {.s_churn = solver == "heun" ? churn : 0});
}

void check_against_reference(const Table& table, const reference::Denoiser& denoiser, double tolerance) {
    auto one = sampler(denoiser);
    const RunOptions options{.seed = 99, .sample = 3, .progress = {}, .cancel = nullptr, .correction = {}};
    const auto found = run(one, table, options);
    const auto count = static_cast<std::int64_t>(found.size());
    double worst = 0, scale = 0;
    for (std::int64_t voxel = 0; voxel < count; voxel += 97) {
        const auto noise = [&](std::uint32_t draw) {
            float n;
            x2ct::normal(&n, voxel, 1, {options.seed, draw, options.sample});
            return static_cast<double>(n);
        };
        const double wanted = reference::run(table, denoiser, noise);
        worst = std::max(worst, std::abs(found[voxel] - wanted));
        scale = std::max(scale, std::abs(wanted));
    }
    CHECK(scale > 0);
    CHECK_CLOSE(worst / scale, 0, tolerance);
}

void solvers_match_the_reference() {
    for (const auto& info : x2ct::solvers()) check_against_reference(usual(info.name), kData, 3e-6);
}

// Rows that no solver of today has: all registers, the whole history, noise in x and y, scaled inputs, a churned start.
void any_table_matches_the_reference() {
    std::vector<x2ct::Row> rows(7);
    double seed = 0.1;
    const auto next = [&] { return seed = std::fmod(seed * 7.31 + 0.37, 1.0), seed - 0.5; };
    for (std::size_t i = 0; i < rows.size(); ++i) {
        x2ct::Row& row = rows[i];
        row.sigma = 5.0 / static_cast<double>(i + 1);
        row.input_scale = 0.5;
        row.a = next(), row.b = next();
        row.draw = static_cast<std::uint32_t>(i + 2);
        for (auto* c : {&row.x, &row.y}) {
            c->x = next(), c->y = next(), c->noise = next();
            for (std::size_t k = 0; k <= std::min<std::size_t>(i, 3); ++k) c->h[k] = next();
        }
    }
    const Table table("any", {5}, 3, 0.7, rows);
    CHECK((table.registers() == std::vector<std::string>{"x", "y", "D", "H1", "H2", "H3"}));
    check_against_reference(table, [](double y, double sigma) { return std::tanh(y + sigma); }, 3e-6);
}

void same_bits_for_any_threads_and_run() {
    for (const auto& info : x2ct::solvers()) {
        auto first = sampler(kData, 1);
        const auto wanted = run(first, usual(info.name));
        for (const int threads : {1, 2, 3, 5}) {
            auto other = sampler(kData, threads);
            for (int repeat = 0; repeat < 2; ++repeat) {
                const auto found = run(other, usual(info.name));
                CHECK(std::memcmp(found.data(), wanted.data(), wanted.size() * sizeof(float)) == 0);
            }
        }
    }
}

void seeds_and_samples_differ() {
    auto one = sampler(kData);
    const auto base = run(one, usual());
    CHECK(base != run(one, usual(), {.seed = 1, .sample = 0, .progress = {}, .cancel = nullptr, .correction = {}}));
    CHECK(base != run(one, usual(), {.seed = 0, .sample = 1, .progress = {}, .cancel = nullptr, .correction = {}}));
}

void progress_counts_evaluations() {
    auto one = sampler(kData);
    const Table table = usual();
    std::vector<x2ct::Progress> seen;
    run(one, table,
        {.seed = 0,
         .sample = 0,
         .progress = [&](const auto& p) { seen.push_back(p); },
         .cancel = nullptr,
         .correction = {}});
    CHECK(static_cast<int>(seen.size()) == table.evaluations());
    for (int i = 0; i < table.evaluations(); ++i) {
        CHECK(seen[i].step == i + 1 && seen[i].total == table.evaluations());
        CHECK(seen[i].sigma == table.rows()[i].sigma);
    }
    CHECK(one.timings().evaluations == table.evaluations());
    CHECK(one.timings().total_s >= one.timings().network_s + one.timings().kernel_s);
}

// The picture shown is D itself, also where H0 then takes its place: for a denoiser that always says the same, exactly
// that; and it may end the run.
void check_preview(const std::string& solver) {
    auto one = sampler([](double, double sigma) { return sigma; });
    const Table table = usual(solver);
    const auto wanted = run(one, table);
    std::vector<int> steps;
    RunOptions options;
    options.preview_every = 2;
    options.preview = [&](const x2ct::Progress& now, const float* denoised) {
        steps.push_back(now.step);
        const auto count = x2ct::volume_of(some_shape());
        for (std::int64_t i = 0; i < count; i += 101) CHECK_CLOSE(denoised[i], now.sigma, 1e-6 * now.sigma);
    };
    CHECK(run(one, table, options) == wanted);
    CHECK((steps == std::vector<int>{2, 4}));
    options.preview = [](const x2ct::Progress&, const float*) { throw std::logic_error("preview"); };
    CHECK_THROWS(std::logic_error, run(one, table, options));
    options.preview_every = 0;
    CHECK_THROWS(x2ct::InputError, run(one, table, options));
    CHECK(run(one, table) == wanted);
}

void a_preview_is_what_the_network_says() {
    for (const char* solver : {"euler", "dpmpp-2m", "ipndm-4"}) check_preview(solver);
}

// Two samplers, each in a thread of its own, while a third is cancelled again and again.
void samplers_in_threads_do_not_disturb_each_other() {
    auto alone = sampler(kData, 1);
    const Table table = usual();
    const auto wanted = run(alone, table);
    std::vector<int> same(3);
    std::vector<std::jthread> threads;
    threads.reserve(3);
    for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
            auto mine = sampler(kData, 2);
            std::atomic<bool> cancel = t == 2;
            RunOptions options;
            options.cancel = &cancel;
            for (int repeat = 0; repeat < 3; ++repeat) {
                try {
                    same[t] += run(mine, table, options) == wanted;
                } catch (const x2ct::Cancelled&) {
                    cancel = false;
                }
            }
        });
    }
    threads.clear();
    CHECK((same == std::vector<int>{3, 3, 2}));
}

void a_cancelled_sampler_runs_again() {
    auto one = sampler(kData);
    const auto wanted = run(one, usual());
    std::atomic<bool> cancel = false;
    int evaluations = 0;
    const RunOptions options{.seed = 0,
                             .sample = 0,
                             .progress = [&](const auto&) { cancel = ++evaluations == 2; },
                             .cancel = &cancel,
                             .correction = {}};
    CHECK_THROWS(x2ct::Cancelled, run(one, usual(), options));
    CHECK(evaluations == 2);
    CHECK(run(one, usual()) == wanted);
}

void a_sampler_survives_exceptions() {
    bool fails = false;
    auto one = sampler([&](double y, double sigma) {
        if (fails && sigma < 1) throw std::runtime_error("network");
        return kData(y, sigma);
    });
    const auto wanted = run(one, usual());
    const auto throws = [](const x2ct::Progress&) { throw std::logic_error("progress"); };
    CHECK_THROWS(std::logic_error,
                 run(one, usual(), {.seed = 0, .sample = 0, .progress = throws, .cancel = nullptr, .correction = {}}));
    fails = true;
    CHECK_THROWS(std::runtime_error, run(one, usual()));
    fails = false;
    CHECK(run(one, usual()) == wanted);
}

// Sees every row once, after the network, and puts its own D in place.
class Overrule : public x2ct::Correction {
  public:
    void apply(int row, int rows, double sigma, float* denoised) override {
        seen.push_back({row, rows, sigma});
        std::fill_n(denoised, x2ct::volume_of(some_shape()), 0.25f);
    }
    std::vector<x2ct::Progress> seen;
};

void a_correction_has_the_last_word_on_every_row() {
    auto one = sampler(kData);
    const Table table = usual("euler");
    const auto overrule = std::make_shared<Overrule>();
    const auto found =
        run(one, table, {.seed = 0, .sample = 0, .progress = {}, .cancel = nullptr, .correction = overrule});
    CHECK(static_cast<int>(overrule->seen.size()) == table.evaluations());
    for (int row = 0; row < table.evaluations(); ++row) {
        const auto& [step, total, sigma] = overrule->seen[row];
        CHECK(step == row && total == table.evaluations() && sigma == table.rows()[row].sigma);
    }
    for (std::size_t i = 0; i < found.size(); i += 101) CHECK_CLOSE(found[i], 0.25, 1e-6);
    CHECK(one.timings().correction_s > 0);
}

// Registers may be kept from run to run, and whatever is in them then is not read.
void what_memory_held_before_changes_nothing() {
    const auto shape = some_shape();
    const auto count = static_cast<std::size_t>(x2ct::volume_of(shape));
    const auto device = x2ct::cpu_device(2);
    Sampler one(std::make_shared<FunctionNetwork>(kData, shape), device, shape);
    device->keep(count);
    for (const auto& info : x2ct::solvers()) {
        const Table table = usual(info.name);
        auto fresh = sampler(kData);
        const auto wanted = run(fresh, table);
        std::vector<float*> volumes;
        for (int k = 0; k < 6; ++k) {
            volumes.push_back(device->allocate(count));
            std::fill_n(volumes.back(), count, std::nanf(""));
        }
        for (float* volume : volumes) device->release(volume);
        CHECK(run(one, table) == wanted);
        float* const kept = device->allocate(count);
        CHECK(std::ranges::find(volumes, kept) != volumes.end());
        device->release(kept);
    }
    float* const held = device->allocate(count);
    device->keep(0);
    device->release(held);
    CHECK(run(one, usual()) == run(one, usual()));
}

// This process's resident memory in bytes, on Linux.
std::int64_t resident() {
    std::int64_t pages = 0, resident_pages = 0;
    std::ifstream("/proc/self/statm") >> pages >> resident_pages;
    return resident_pages * sysconf(_SC_PAGESIZE);
}

// Also once malloc has seen so much that it would keep it, and with younger memory behind it.
void large_memory_goes_back_when_it_is_released() {
    constexpr std::size_t kCount = 2 << 20;
    constexpr std::int64_t kBytes = kCount * sizeof(float);
    const auto device = x2ct::cpu_device(1);
    std::vector<float*> volumes;
    for (int round = 0; round < 2; ++round) {
        for (int k = 0; k < 8; ++k) {
            volumes.push_back(device->allocate(kCount));
            CHECK(reinterpret_cast<std::uintptr_t>(volumes.back()) % 64 == 0);
            std::fill_n(volumes.back(), kCount, 1.0f);
        }
        const std::int64_t before = resident();
        for (int k = 0; k < 7; ++k) device->release(volumes[k]);
        CHECK(before - resident() > 6 * kBytes);
        device->release(volumes[7]);
        volumes.clear();
    }
}

void a_second_run_meanwhile_is_refused() {
    auto one = sampler(kData);
    bool refused = false;
    const auto inside = [&](const x2ct::Progress&) {
        std::thread([&] {
            try {
                run(one, usual());
            } catch (const x2ct::Error&) {
                refused = true;
            }
        }).join();
    };
    run(one, usual("euler"), {.seed = 0, .sample = 0, .progress = inside, .cancel = nullptr, .correction = {}});
    CHECK(refused);
}

// A network whose tensors aren't what the loop needs.
class Odd : public FunctionNetwork {
  public:
    Odd(std::vector<x2ct::TensorInfo> inputs, std::string device)
        : FunctionNetwork(kData, some_shape()), odd_inputs_(std::move(inputs)), odd_device_(std::move(device)) {}
    const std::vector<x2ct::TensorInfo>& inputs() const override { return odd_inputs_; }
    std::string device() const override { return odd_device_; }

  private:
    std::vector<x2ct::TensorInfo> odd_inputs_;
    std::string odd_device_;
};

void misfits_are_refused() {
    const auto make = [](std::vector<x2ct::TensorInfo> inputs, const std::string& device = "cpu") {
        return Sampler(std::make_shared<Odd>(std::move(inputs), device), x2ct::cpu_device(1), some_shape());
    };
    CHECK_THROWS(x2ct::InputError, make({{"x", some_shape()}}));
    CHECK_THROWS(x2ct::InputError, make({{"sigma", {1}}}));
    CHECK_THROWS(x2ct::InputError, make({{"x", {1, 1, 8, 8, 8}}, {"sigma", {1}}}));
    CHECK_THROWS(x2ct::InputError, make({{"x", some_shape()}, {"sigma", {1}}}, "cuda:0"));
    auto conditioned = make({{"x", some_shape()}, {"sigma", {1}}, {"c0", {1, 2, -1}}});
    CHECK_THROWS(x2ct::InputError, run(conditioned, usual()));
    const std::vector<float> c0(6);
    CHECK_THROWS(x2ct::InputError, conditioned.set_condition("c0", c0.data(), {1, 3, 2}));
    CHECK_THROWS(x2ct::InputError, conditioned.set_condition("c1", c0.data(), {1, 2, 3}));
    CHECK_THROWS(x2ct::InputError, conditioned.set_condition("x", c0.data(), {1, 2, 3}));
    conditioned.set_condition("c0", c0.data(), {1, 2, 3});
}

void impossible_memory_is_an_error() {
    CHECK_THROWS(x2ct::OutOfMemory, x2ct::cpu_device(1)->allocate(std::size_t{1} << 60));
}

}  // namespace

TESTS(solvers_match_the_reference, any_table_matches_the_reference, same_bits_for_any_threads_and_run,
      seeds_and_samples_differ, progress_counts_evaluations, a_preview_is_what_the_network_says,
      samplers_in_threads_do_not_disturb_each_other, a_cancelled_sampler_runs_again, a_sampler_survives_exceptions,
      a_correction_has_the_last_word_on_every_row, what_memory_held_before_changes_nothing,
      large_memory_goes_back_when_it_is_released, a_second_run_meanwhile_is_refused, misfits_are_refused,
      impossible_memory_is_an_error)
