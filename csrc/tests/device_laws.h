// What any device must do as the CPU does, to the bit: for the GPU itself (gpu.cpp), and for the CUDA device over an
// emulated runtime (test_cuda.cpp). gpu() is the includer's.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "x2ct/error.h"
#include "x2ct/sampler.h"
#include "x2ct/schedule.h"
#include "x2ct/tiles.h"

namespace laws {

using x2ct::Device;
using x2ct::RowKernel;

std::shared_ptr<Device> gpu();
inline std::shared_ptr<Device> cpu() { return x2ct::cpu_device(1); }

inline std::vector<float> numbers(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    return values;
}

inline bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline x2ct::Buffer on(const std::shared_ptr<Device>& device, const std::vector<float>& values) {
    x2ct::Buffer buffer(device, values.size());
    device->upload(buffer.data(), values.data(), values.size());
    return buffer;
}

inline std::vector<float> values_of(Device& device, const x2ct::Buffer& buffer) {
    std::vector<float> values(buffer.count());
    device.download(values.data(), buffer.data(), values.size());
    return values;
}

inline void copies_of_any_size_come_back() {
    const auto device = gpu();
    for (const std::size_t count : {1, 1000, 1 << 20, (1 << 20) + 1, 5000003}) {
        const auto values = numbers(count, 1);
        CHECK(same(values_of(*device, on(device, values)), values));
    }
}

/// The pinned memory that it goes through is still being read when the kernel is queued, which is no error of
/// anybody's.
inline void a_kernel_follows_copies_that_are_under_way() {
    const auto device = gpu();
    const auto values = numbers(5000003, 1);
    const x2ct::Buffer from = on(device, values), to(device, values.size());
    RowKernel kernel;
    kernel.count = static_cast<std::int64_t>(values.size());
    kernel.x = from.data(), kernel.new_y = to.data(), kernel.to_y.x = 1;
    device->run(kernel);
    CHECK(same(values_of(*device, to), values));
}

/// Also what was given back and is taken again.
inline void addresses_are_what_networks_ask_for() {
    for (const auto& [device, alignment] : {std::pair(gpu(), 256), std::pair(cpu(), 64)}) {
        for (int turn = 0; turn < 3; ++turn) {
            std::vector<x2ct::Buffer> taken;
            for (const std::size_t count : {1, 3, 63, 64, 65, 1000, 4099, 100003}) {
                taken.emplace_back(device, count);
                CHECK(reinterpret_cast<std::uintptr_t>(taken.back().data()) % alignment == 0);
            }
        }
    }
}

inline void noise_is_the_cpus() {
    const auto device = gpu();
    for (const std::int64_t count : {1, 2, 3, 4, 5, 1023, 65537}) {
        x2ct::Buffer buffer(device, static_cast<std::size_t>(count));
        RowKernel kernel;
        kernel.count = count;
        kernel.noise = {0x123456789abcdefULL + static_cast<std::uint64_t>(count), 7, 3};
        kernel.new_y = buffer.data();
        kernel.to_y.noise = 1;
        device->run(kernel);
        std::vector<float> wanted(buffer.count());
        x2ct::normal(wanted.data(), 0, count, kernel.noise);
        CHECK(same(values_of(*device, buffer), wanted));
    }
}

struct Registers {
    explicit Registers(const std::shared_ptr<Device>& device, std::size_t count) {
        for (unsigned k = 0; k < 7; ++k) all.push_back(on(device, numbers(count, k)));
    }
    std::vector<x2ct::Buffer> all;  // x y D H1 H2 H3 and a free one
};

inline RowKernel row_over(const Registers& registers, std::int64_t count, unsigned seed) {
    std::mt19937 random(seed);
    const auto weight = [&] { return random() % 3 == 0 ? 0.0F : std::uniform_real_distribution<float>(-2, 2)(random); };
    RowKernel kernel;
    kernel.count = count;
    kernel.x = registers.all[0].data();
    kernel.y = registers.all[1].data();
    kernel.denoised = registers.all[2].data();
    for (int k = 1; k < 4; ++k) kernel.h[k] = registers.all[2 + k].data();
    kernel.a = weight(), kernel.b = random() % 2 ? 1 : weight();
    for (auto* to : {&kernel.to_x, &kernel.to_y}) {
        to->x = weight(), to->y = weight(), to->noise = weight();
        for (float& h : to->h) h = weight();
    }
    kernel.noise = {seed, 1, 2};
    if (random() % 4 != 0) kernel.new_x = registers.all[0].data();
    if (random() % 4 != 0) kernel.new_y = registers.all[1].data();
    if (random() % 2 != 0) kernel.new_h = registers.all[random() % 2 ? 2 : 6].data();
    return kernel;
}

inline void any_row_is_the_cpus() {
    const auto device = gpu(), host = cpu();
    for (unsigned seed = 0; seed < 200; ++seed) {
        const std::int64_t count = 1 + seed * 7 % 1500;
        const Registers here(host, static_cast<std::size_t>(count)), there(device, static_cast<std::size_t>(count));
        host->run(row_over(here, count, seed));
        device->run(row_over(there, count, seed));
        for (std::size_t k = 0; k < here.all.size(); ++k) {
            CHECK(same(values_of(*device, there.all[k]), values_of(*host, here.all[k])));
        }
    }
}

inline void any_box_is_the_cpus() {
    const auto device = gpu(), host = cpu();
    const x2ct::Index from_grid = {7, 6, 12}, to_grid = {6, 9, 16};
    std::mt19937 random(5);  // NOLINT(bugprone-random-generator-seed): the same test each time
    for (int turn = 0; turn < 100; ++turn) {
        const std::int64_t channels = 1 + turn % 3, unit = turn % 2 ? 4 : 1;
        x2ct::BoxCopy box;
        box.channels = channels;
        box.from_grid = from_grid, box.to_grid = to_grid;
        for (int axis = 0; axis < 3; ++axis) {
            const std::int64_t step = axis == 2 ? unit : 1;
            const auto below = [&](std::int64_t most) {
                return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(most / step)) * step;
            };
            box.extent[axis] = step + below(std::min(from_grid[axis], to_grid[axis]));
            box.from_origin[axis] = below(from_grid[axis] - box.extent[axis] + step);
            box.to_origin[axis] = below(to_grid[axis] - box.extent[axis] + step);
        }
        const auto from = numbers(static_cast<std::size_t>(channels) * 7 * 6 * 12, 1);
        const auto to = numbers(static_cast<std::size_t>(channels) * 6 * 9 * 16, 2);
        std::vector<std::vector<float>> results;
        for (const auto& one : {host, device}) {
            const x2ct::Buffer source = on(one, from), target = on(one, to);
            box.from = source.data(), box.to = target.data();
            one->copy(box);
            results.push_back(values_of(*one, target));
        }
        CHECK(same(results[0], results[1]));
    }
}

/// D = x / 2 + c / 4, and sigma in the first voxel: queued on the device, as a runtime that may be recorded does. It
/// takes no address on a GPU that TensorRT would refuse.
class QueueNetwork : public x2ct::Network {
  public:
    QueueNetwork(std::shared_ptr<Device> device, const x2ct::Shape& shape, bool recordable = true)
        : device_(std::move(device)),
          recordable_(recordable),
          inputs_{{"x", shape}, {"sigma", {-1}}, {"c", shape}},
          outputs_{{"denoised", shape}} {}

    const std::vector<x2ct::TensorInfo>& inputs() const override { return inputs_; }
    const std::vector<x2ct::TensorInfo>& outputs() const override { return outputs_; }
    std::string device() const override { return device_->name(); }
    std::string precision() const override { return "f32"; }
    std::string runtime_version() const override { return ""; }
    std::unique_ptr<x2ct::Session> session() override { return std::make_unique<Evaluation>(*this); }

    int calls = 0;
    int fails_at = -1;
    std::set<std::pair<const float*, float*>> places;  // of x and D so far: to ONNX Runtime each is another graph

  private:
    class Evaluation : public x2ct::Session {
      public:
        explicit Evaluation(QueueNetwork& network) : network_(network) {}
        void set_input(const std::string& name, const float* data, const x2ct::Shape&) override {
            check_address(data);
            (name == "x" ? x_ : name == "c" ? c_ : sigma_) = data;
        }
        void set_output(const std::string&, float* data, const x2ct::Shape&) override {
            check_address(data);
            denoised_ = data;
        }
        void evaluate() override {
            if (network_.calls++ == network_.fails_at) throw x2ct::Error("network: failed");
            network_.places.emplace(x_, denoised_);
            RowKernel mix;
            mix.count = x2ct::volume_of(network_.outputs_[0].shape);
            mix.x = x_, mix.y = c_, mix.new_y = denoised_;
            mix.to_y.x = 0.5F, mix.to_y.y = 0.25F;
            network_.device_->run(mix);
            const x2ct::Index one = {1, 1, 1}, line = {1, 1, mix.count};
            network_.device_->copy({sigma_, one, {}, denoised_, line, {}, one});
        }
        bool is_recordable() const override { return network_.recordable_; }
        x2ct::TensorView output(const std::string&) override { return {denoised_, network_.outputs_[0].shape}; }

      private:
        void check_address(const float* data) const {
            CHECK(network_.device_->stream() == nullptr || reinterpret_cast<std::uintptr_t>(data) % 256 == 0);
        }

        QueueNetwork& network_;
        const float *x_ = nullptr, *c_ = nullptr, *sigma_ = nullptr;
        float* denoised_ = nullptr;
    };

    std::shared_ptr<Device> device_;
    bool recordable_;
    std::vector<x2ct::TensorInfo> inputs_, outputs_;
};

// NOLINTNEXTLINE(bugprone-throwing-static-initialization): a test may end so
inline const x2ct::Shape kShape = {1, 1, 8, 12, 20};

struct Rig {
    explicit Rig(std::shared_ptr<Device> on, bool recordable = true)
        : device(std::move(on)),
          network(std::make_shared<QueueNetwork>(device, kShape, recordable)),
          sampler(network, device, kShape) {
        condition(1);
    }
    void condition(unsigned seed) {
        const auto c = numbers(static_cast<std::size_t>(x2ct::volume_of(kShape)), seed);
        sampler.set_condition("c", c.data(), kShape);
    }
    std::vector<float> run(const x2ct::Table& table, const x2ct::RunOptions& options) {
        std::vector<float> out(static_cast<std::size_t>(x2ct::volume_of(kShape)));
        sampler.run(table, options, out.data());
        return out;
    }
    std::vector<float> run(const x2ct::Table& table, std::uint64_t seed = 1) {
        x2ct::RunOptions options;
        options.seed = seed;
        return run(table, options);
    }

    std::shared_ptr<Device> device;
    std::shared_ptr<QueueNetwork> network;
    x2ct::Sampler sampler;
};

inline x2ct::Table table_of(const std::string& solver, int steps = 6) {
    return x2ct::make_table(solver, x2ct::schedule("edm", steps, 0.03, 20), {.s_churn = solver == "heun" ? 5.0 : 0.0});
}

inline void every_solver_gives_the_cpus_bits_queued_and_replayed() {
    Rig here(cpu());
    for (const bool recordable : {true, false}) {
        Rig there(gpu(), recordable);
        for (const auto& info : x2ct::solvers()) {
            const auto table = table_of(info.name);
            for (const std::uint64_t seed : {1, 2, 3}) CHECK(same(there.run(table, seed), here.run(table, seed)));
        }
    }
}

inline void a_replay_reads_the_new_coefficients_and_conditions() {
    Rig here(cpu()), there(gpu());
    there.run(table_of("unipc-2")), there.run(table_of("unipc-2"));
    const int calls = there.network->calls;
    const auto other = x2ct::make_table("unipc-2", x2ct::schedule("log-snr", 6, 0.1, 50), {});
    here.condition(9), there.condition(9);
    CHECK(same(there.run(other, 77), here.run(other, 77)));
    CHECK(there.network->calls == calls);  // the host called no network
}

inline void the_whole_loop_is_one_where_nobody_listens() {
    Rig here(cpu()), there(gpu());
    const auto table = table_of("unipc-3");
    x2ct::RunOptions options;
    options.at_once = true;
    there.run(table);
    for (const std::uint64_t seed : {4, 5, 6}) {
        options.seed = seed;
        CHECK(same(there.run(table, options), here.run(table, seed)));
        CHECK(there.sampler.timings().waits <= 1);  // for the result
    }
    CHECK(same(here.run(table, options), here.run(table, 6)));
    options.progress = [](const x2ct::Progress&) {};
    CHECK_THROWS(x2ct::InputError, there.run(table, options));
}

inline void only_rows_and_the_result_are_waited_for() {
    Rig rig(gpu());
    const auto table = table_of("unipc-2");
    for (int turn = 0; turn < 3; ++turn) {
        rig.run(table);
        CHECK(rig.sampler.timings().waits <= table.evaluations() + (turn == 0 ? 3 : 1));  // first for conditions, too
    }
}

inline void progress_tells_every_row() {
    Rig rig(gpu());
    for (int turn = 0; turn < 3; ++turn) {
        std::vector<int> steps;
        x2ct::RunOptions options;
        options.progress = [&](const x2ct::Progress& now) { steps.push_back(now.step); };
        rig.run(table_of("dpmpp-2m"), options);
        CHECK((steps == std::vector<int>{1, 2, 3, 4, 5, 6}));
    }
}

inline void previews_are_the_cpus() {
    Rig here(cpu()), there(gpu());
    const auto table = table_of("heun");
    const auto shown = [&](Rig& rig) {
        std::vector<float> all;
        x2ct::RunOptions options;
        options.preview_every = 2;
        options.preview = [&](const x2ct::Progress&, const float* denoised) {
            all.insert(all.end(), denoised, denoised + x2ct::volume_of(kShape));
        };
        rig.run(table, options);
        return all;
    };
    CHECK(same(shown(there), shown(here)));
}

inline void corrections_are_the_cpus() {
    class Half : public x2ct::Correction {
        void apply(int row, int, double, float* denoised) override {
            for (std::int64_t i = row; i < x2ct::volume_of(kShape); i += 2) denoised[i] *= 0.5F;
        }
    };
    Rig here(cpu()), there(gpu());
    x2ct::RunOptions options;
    options.correction = std::make_shared<Half>();
    for (int turn = 0; turn < 3; ++turn) {
        CHECK(same(there.run(table_of("unipc-2"), options), here.run(table_of("unipc-2"), options)));
        CHECK(same(there.run(table_of("unipc-2")), here.run(table_of("unipc-2"))));
    }
}

inline void it_outlives_cancelling_and_failing() {
    Rig here(cpu()), there(gpu());
    const auto table = table_of("unipc-2");
    const auto wanted = here.run(table);
    there.run(table);
    std::atomic<bool> cancel = false;
    x2ct::RunOptions options;
    options.cancel = &cancel;
    options.progress = [&](const x2ct::Progress& now) { cancel = now.step == 2; };
    CHECK_THROWS(x2ct::Cancelled, there.run(table, options));
    CHECK(same(there.run(table), wanted));
    // A failure while a step is being recorded leaves no half of a graph behind.
    for (const bool warm : {false, true}) {
        Rig fresh(gpu());
        fresh.network->fails_at = warm ? 2 : 0;
        CHECK_THROWS(x2ct::Error, fresh.run(table));
        CHECK(same(fresh.run(table), wanted));
        CHECK(same(fresh.run(table), wanted));
    }
}

// With conditions that come to lie elsewhere, for other memory is given back meanwhile.
inline void tiles_are_the_cpus() {
    const x2ct::Tiling tiling{{24, 16, 32}, {16, 16, 16}, 4, 4};
    const x2ct::Shape whole = {1, 1, 24, 16, 32}, tile = {1, 1, 16, 16, 16};
    std::vector<std::vector<float>> results;
    for (const auto& device : {cpu(), gpu()}) {
        const auto network = std::make_shared<QueueNetwork>(device, tile);
        x2ct::Sampler sampler(std::make_unique<x2ct::TiledEvaluator>(network, device, tiling), device);
        std::vector<x2ct::Buffer> taken;
        taken.reserve(5);
        for (int k = 0; k < 5; ++k) taken.emplace_back(device, 24 * 16 * 32);
        std::vector<float> all;
        for (unsigned turn = 0; turn < 5; ++turn) {
            const auto c = numbers(24 * 16 * 32, turn);
            sampler.set_condition("c", c.data(), whole);
            std::vector<float> out(c.size());
            for (int again = 0; again < 2; ++again) sampler.run(table_of("dpmpp-3m"), {}, out.data());
            all.insert(all.end(), out.begin(), out.end());
            taken.pop_back();
        }
        results.push_back(all);
    }
    CHECK(same(results[0], results[1]));
}

inline void the_devices_clock_tells_where_time_went() {
    Rig rig(gpu());
    for (int turn = 0; turn < 3; ++turn) {
        rig.run(table_of("unipc-2"));
        const x2ct::Timings timings = rig.sampler.timings();
        CHECK(timings.network_s > 0);
        CHECK(timings.kernel_s > 0);
        CHECK(timings.gap_s >= 0);
        // The first time rows are recorded between others, which takes the host longer than such small rows take.
        CHECK(turn == 0 || timings.gap_s < timings.network_s);
    }
}

}  // namespace laws

#define DEVICE_LAWS                                                                                                 \
    laws::copies_of_any_size_come_back, laws::a_kernel_follows_copies_that_are_under_way,                           \
        laws::addresses_are_what_networks_ask_for, laws::noise_is_the_cpus, laws::any_row_is_the_cpus,              \
        laws::any_box_is_the_cpus, laws::every_solver_gives_the_cpus_bits_queued_and_replayed,                      \
        laws::a_replay_reads_the_new_coefficients_and_conditions, laws::the_whole_loop_is_one_where_nobody_listens, \
        laws::only_rows_and_the_result_are_waited_for, laws::progress_tells_every_row, laws::previews_are_the_cpus, \
        laws::corrections_are_the_cpus, laws::it_outlives_cancelling_and_failing, laws::tiles_are_the_cpus,         \
        laws::the_devices_clock_tells_where_time_went
