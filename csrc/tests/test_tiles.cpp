// Tiles: a cut covers the grid once, what is put together is what the whole volume gives, and a plan fits its budget.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>

#include "check.h"
#include "x2ct/error.h"
#include "x2ct/noise.h"
#include "x2ct/sampler.h"
#include "x2ct/schedule.h"
#include "x2ct/tiles.h"

namespace {

using x2ct::Index;
using x2ct::Shape;
using x2ct::Tiling;

constexpr std::int64_t kStride = 4;
constexpr std::int64_t kHalo = 8;  // the thin network below looks 2 voxels far and at its cell, its lift 1
constexpr Index kGrid = {32, 24, 40};

using Volume = std::vector<float>;

std::int64_t size_of(const Index& grid) { return grid[0] * grid[1] * grid[2]; }

Shape shape_of(std::int64_t channels, const Index& grid, std::int64_t stride = 1) {
    return {1, channels, grid[0] / stride, grid[1] / stride, grid[2] / stride};
}

// A 3^3 convolution with zeros outside, as networks pad: an edge is felt, and must be felt at the grid's edge only.
Volume blurred(const Volume& in, const Index& n) {
    Volume out(in.size());
    const auto at = [&](std::int64_t x, std::int64_t y, std::int64_t z) { return (x * n[1] + y) * n[2] + z; };
    for (std::int64_t x = 0; x < n[0]; ++x) {
        for (std::int64_t y = 0; y < n[1]; ++y) {
            for (std::int64_t z = 0; z < n[2]; ++z) {
                float sum = 0.1f;  // a bias: zeros outside are not what lies inside
                for (std::int64_t i = std::max<std::int64_t>(x - 1, 0); i <= std::min(x + 1, n[0] - 1); ++i) {
                    for (std::int64_t j = std::max<std::int64_t>(y - 1, 0); j <= std::min(y + 1, n[1] - 1); ++j) {
                        for (std::int64_t k = std::max<std::int64_t>(z - 1, 0); k <= std::min(z + 1, n[2] - 1); ++k) {
                            sum += in[at(i, j, k)] * static_cast<float>(1 + (i - x) + 2 * (j - y) + 3 * (k - z));
                        }
                    }
                }
                out[at(x, y, z)] = std::tanh(0.2f * sum);
            }
        }
    }
    return out;
}

// The mean of each cell of kStride^3 voxels, as a coarse layer sees it.
Volume pooled(const Volume& in, const Index& n) {
    Volume out(in.size() / (kStride * kStride * kStride));
    for (std::int64_t x = 0; x < n[0]; ++x) {
        for (std::int64_t y = 0; y < n[1]; ++y) {
            for (std::int64_t z = 0; z < n[2]; ++z) {
                const std::int64_t cell =
                    ((x / kStride) * (n[1] / kStride) + y / kStride) * (n[2] / kStride) + z / kStride;
                out[cell] += in[(x * n[1] + y) * n[2] + z] / 64;
            }
        }
    }
    return out;
}

// A network of tensors by name, from a function; the sizes are fixed.
class Thin : public x2ct::Network {
  public:
    using Tensors = std::map<std::string, Volume>;
    using Function = std::function<Tensors(const Tensors&)>;

    Thin(std::vector<x2ct::TensorInfo> inputs, std::vector<x2ct::TensorInfo> outputs, Function function)
        : inputs_(std::move(inputs)), outputs_(std::move(outputs)), function_(std::move(function)) {}

    const std::vector<x2ct::TensorInfo>& inputs() const override { return inputs_; }
    const std::vector<x2ct::TensorInfo>& outputs() const override { return outputs_; }
    std::string device() const override { return "cpu"; }
    std::string precision() const override { return "f32"; }
    std::string runtime_version() const override { return ""; }
    std::unique_ptr<x2ct::Session> session() override { return std::make_unique<Evaluation>(*this); }

  private:
    class Evaluation : public x2ct::Session {
      public:
        explicit Evaluation(const Thin& network) : network_(network) {}
        void set_input(const std::string& name, const float* data, const Shape& shape) override {
            in_[name] = {data, static_cast<std::size_t>(x2ct::volume_of(shape))};
        }
        void set_output(const std::string& name, float* data, const Shape&) override { out_[name] = data; }
        void evaluate() override {
            Tensors given;
            for (const auto& [name, view] : in_) given[name] = Volume(view.first, view.first + view.second);
            made_ = network_.function_(given);
            for (const auto& [name, to] : out_) std::ranges::copy(made_.at(name), to);
        }
        x2ct::TensorView output(const std::string& name) override { return {made_.at(name).data(), {}}; }

      private:
        const Thin& network_;
        std::map<std::string, std::pair<const float*, std::size_t>> in_;
        std::map<std::string, float*> out_;
        Tensors made_;
    };

    std::vector<x2ct::TensorInfo> inputs_;
    std::vector<x2ct::TensorInfo> outputs_;
    Function function_;
};

std::shared_ptr<x2ct::Network> denoiser(const Index& grid) {
    return std::make_shared<Thin>(
        std::vector<x2ct::TensorInfo>{{"x", shape_of(1, grid)}, {"sigma", {1}}, {"c0", shape_of(1, grid, kStride)}},
        std::vector<x2ct::TensorInfo>{{"denoised", shape_of(1, grid)}}, [grid](const Thin::Tensors& in) {
            Volume fine = blurred(blurred(in.at("x"), grid), grid);
            const Volume coarse = pooled(fine, grid);
            for (std::int64_t i = 0; i < size_of(grid); ++i) {
                const std::int64_t x = i / (grid[1] * grid[2]), y = i / grid[2] % grid[1], z = i % grid[2];
                const std::int64_t cell =
                    (x / kStride * (grid[1] / kStride) + y / kStride) * (grid[2] / kStride) + z / kStride;
                fine[i] += 0.5f * coarse[cell] + in.at("c0")[cell];
            }
            return Thin::Tensors{{"denoised", fine}};
        });
}

// The mean of blurred coordinates: a lift with a radius of its own, which also feels the grid's edge.
std::shared_ptr<x2ct::Network> lift_network(const Index& grid) {
    return std::make_shared<Thin>(
        std::vector<x2ct::TensorInfo>{{"coords", shape_of(3, grid)}, {"offset", {1}}},
        std::vector<x2ct::TensorInfo>{{"c0", shape_of(1, grid, kStride)}}, [grid](const Thin::Tensors& in) {
            const auto& coords = in.at("coords");
            const std::int64_t n = size_of(grid);
            Volume sum(n);
            for (std::int64_t i = 0; i < n; ++i) {
                sum[i] = coords[i] + 2 * coords[n + i] - coords[2 * n + i] + in.at("offset")[0];
            }
            return Thin::Tensors{{"c0", pooled(blurred(sum, grid), grid)}};
        });
}

std::shared_ptr<x2ct::Lift> lift(const Index& tile) {
    auto one = std::make_shared<x2ct::Lift>(lift_network(tile), x2ct::cpu_device(1),
                                            Tiling{kGrid, tile, kStride, kStride}, std::array<double, 3>{2, 3, 4});
    const float offset = 0.3f;
    one->set_input("offset", &offset, {1});
    return one;
}

// The conditions of the whole grid, from one evaluation of the lift.
Volume whole_condition() {
    const auto one = lift(kGrid);
    const x2ct::Box all{{}, kGrid};
    one->evaluate(all);
    Volume found(static_cast<std::size_t>(size_of(kGrid) / 64));
    one->copy(0, all, found.data(), all);
    return found;
}

x2ct::Table table() { return x2ct::make_table("dpmpp-2m", x2ct::schedule("edm", 4, 0.03, 20)); }

Volume run(x2ct::Sampler& sampler, const x2ct::RunOptions& options = {}) {
    Volume out(static_cast<std::size_t>(size_of(kGrid)));
    sampler.run(table(), options, out.data());
    return out;
}

Volume whole() {
    x2ct::Sampler sampler(denoiser(kGrid), x2ct::cpu_device(1), shape_of(1, kGrid));
    sampler.set_condition("c0", whole_condition().data(), shape_of(1, kGrid, kStride));
    return run(sampler);
}

std::unique_ptr<x2ct::TiledEvaluator> tiled(const Index& tile, std::int64_t halo) {
    return std::make_unique<x2ct::TiledEvaluator>(denoiser(tile), x2ct::cpu_device(2),
                                                  Tiling{kGrid, tile, halo, kStride});
}

Volume in_tiles(const Index& tile, std::int64_t halo) {
    x2ct::Sampler sampler(tiled(tile, halo), x2ct::cpu_device(1));
    sampler.set_condition("c0", whole_condition().data(), shape_of(1, kGrid, kStride));
    return run(sampler);
}

void a_cut_covers_the_grid_once() {
    std::uint32_t drawn = 0;
    const auto below = [&](int n) {
        return static_cast<std::int64_t>(x2ct::philox({drawn++, 0, 0, 0}, {7, 0})[0] % static_cast<unsigned>(n));
    };
    for (int trial = 0; trial < 300; ++trial) {
        Tiling cut{{}, {}, kStride * below(3), kStride};
        for (std::size_t axis = 0; axis < 3; ++axis) {
            cut.grid[axis] = kStride * (2 + below(8));
            cut.tile[axis] = std::min(cut.grid[axis], 2 * cut.halo + kStride * (1 + below(3)));
        }
        cut.check();
        const auto count = cut.count();
        for (int row = 0; row < 4; ++row) {
            std::vector<int> covered(static_cast<std::size_t>(size_of(cut.grid)));
            const auto tiles = cut.tiles(row);
            CHECK(static_cast<std::int64_t>(tiles.size()) == size_of(count));
            for (const auto& [in, out] : tiles) {
                bool good = in.extent == cut.tile;
                for (std::size_t a = 0; a < 3; ++a) {
                    const std::int64_t in_end = in.origin[a] + in.extent[a], out_end = out.origin[a] + out.extent[a];
                    good = good && in.origin[a] >= 0 && in_end <= cut.grid[a] && in.origin[a] % kStride == 0;
                    good = good && out.extent[a] > 0 && out.origin[a] % kStride == 0;
                    good = good && (out.origin[a] - in.origin[a] >= cut.halo || in.origin[a] == 0);
                    good = good && (in_end - out_end >= cut.halo || in_end == cut.grid[a]);
                }
                CHECK(good);
                for (std::int64_t x = 0; x < out.extent[0]; ++x) {
                    for (std::int64_t y = 0; y < out.extent[1]; ++y) {
                        for (std::int64_t z = 0; z < out.extent[2]; ++z) {
                            ++covered[((out.origin[0] + x) * cut.grid[1] + out.origin[1] + y) * cut.grid[2] +
                                      out.origin[2] + z];
                        }
                    }
                }
            }
            CHECK(std::ranges::all_of(covered, [](int times) { return times == 1; }));
        }
    }
}

void seams_move_between_rows() {
    const Tiling cut{{64, 8, 8}, {48, 8, 8}, 8, kStride};  // two tiles overlap by 32, of which halos take 16
    const auto seam = [&](int row) { return cut.tiles(row)[1].output.origin[0]; };
    CHECK(seam(0) == 40 && seam(1) == 36 && seam(2) == 32);
}

void tiles_give_what_the_whole_gives() {
    const Volume wanted = whole();
    for (const Index& tile : {Index{20, 24, 40}, Index{20, 20, 20}, Index{24, 24, 28}, Index{32, 24, 40}}) {
        const Volume found = in_tiles(tile, kHalo);
        CHECK(std::memcmp(found.data(), wanted.data(), wanted.size() * sizeof(float)) == 0);
    }
}

void a_thinner_halo_tells() {
    const Volume wanted = whole(), found = in_tiles({16, 16, 16}, 0);
    float worst = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) worst = std::max(worst, std::abs(found[i] - wanted[i]));
    CHECK(worst > 1e-6f);
}

void a_lift_by_tiles_gives_what_the_whole_gives() {
    const Volume wanted = whole();
    const Index tile = {20, 20, 24};
    for (const bool keep : {true, false}) {
        auto evaluator = tiled(tile, kHalo);
        Index wider = tile;
        for (std::size_t axis = 0; axis < 3; ++axis) wider[axis] = std::min(kGrid[axis], tile[axis] + 2 * kStride);
        x2ct::Sampler sampler(std::move(evaluator), x2ct::cpu_device(1));
        if (keep) {
            sampler.set_lifted(lift(wider)->whole());
        } else {
            sampler.set_lift(lift(wider));
        }
        const Volume found = run(sampler);
        CHECK(std::memcmp(found.data(), wanted.data(), wanted.size() * sizeof(float)) == 0);
    }
}

void a_run_ends_between_tiles_and_the_sampler_goes_on() {
    x2ct::Sampler sampler(tiled({20, 20, 20}, kHalo), x2ct::cpu_device(1));
    sampler.set_condition("c0", whole_condition().data(), shape_of(1, kGrid, kStride));
    std::atomic<bool> cancel = false;
    int pauses = 0, evaluations = 0;
    x2ct::RunOptions options;
    options.cancel = &cancel;
    options.pause = [&] { cancel = ++pauses == 3; };
    options.progress = [&](const auto&) { ++evaluations; };
    CHECK_THROWS(x2ct::Cancelled, run(sampler, options));
    CHECK(pauses == 3 && evaluations == 0);
    CHECK(run(sampler) == whole());
}

void misfits_are_refused() {
    const auto check = [](const Index& grid, const Index& tile, std::int64_t halo) {
        Tiling{grid, tile, halo, kStride}.check();
    };
    CHECK_THROWS(x2ct::InputError, check({30, 24, 40}, {16, 16, 16}, 4));
    CHECK_THROWS(x2ct::InputError, check(kGrid, {18, 16, 16}, 4));
    CHECK_THROWS(x2ct::InputError, check(kGrid, {16, 16, 16}, 8));
    CHECK_THROWS(x2ct::InputError, check(kGrid, {16, 16, 16}, 3));
    auto evaluator = tiled({20, 20, 20}, kHalo);
    const Volume c0(1000);
    CHECK_THROWS(x2ct::InputError, evaluator->set_condition("c0", c0.data(), {1, 1, 5, 5, 5}));
    CHECK_THROWS(x2ct::InputError, evaluator->set_condition("c1", c0.data(), shape_of(1, kGrid, kStride)));
    CHECK_THROWS(x2ct::InputError, evaluator->prepare({1}));
    CHECK_THROWS(x2ct::InputError, lift({16, 16, 16})->evaluate({{8, 8, 8}, {12, 12, 12}}));
}

void a_plan_fits_its_budget_and_uses_it() {
    const Index grid = {256, 256, 160};
    const x2ct::MemoryNeeds needs{.fixed = 300 << 20, .grid = 12, .conditions = 20, .denoiser = 70, .lift = 90};
    const auto work = [](const x2ct::TilePlan& plan) {
        return size_of(plan.denoiser.count()) * size_of(plan.denoiser.tile);
    };
    std::int64_t before = 0;
    for (const std::int64_t mib : {4000, 2500, 1600, 1200, 1000, 900}) {
        const auto plan = x2ct::plan_tiles(grid, 8, 47, 11, needs, mib << 20);
        CHECK(plan.bytes <= mib << 20);
        plan.denoiser.check();
        plan.lift.check();
        CHECK(plan.denoiser.halo == 48 && plan.lift.halo == 16);
        CHECK(work(plan) >= before);
        before = work(plan);
        CHECK(plan.whole() == (mib >= 2500));
        CHECK(plan.keep && plan.in_turn == (mib < 4000));  // what fits side by side stays
    }
    CHECK(before > size_of(grid));
    CHECK_THROWS(x2ct::OutOfMemory, x2ct::plan_tiles(grid, 8, 47, 11, needs, 400 << 20));
    CHECK_THROWS(x2ct::InputError, x2ct::plan_tiles({250, 256, 160}, 8, 47, 11, needs, std::int64_t{1} << 40));
    const x2ct::MemoryNeeds heavy{.fixed = 300 << 20, .grid = 12, .conditions = 20, .denoiser = 300, .lift = 90};
    const auto unknown = x2ct::plan_tiles(grid, 8, 16, -1, heavy, std::int64_t{2500} << 20);
    CHECK(unknown.keep && unknown.lift.tile == grid && !unknown.whole());
}

void an_encoding_is_over_when_a_run_begins() {
    const Index grid = {64, 64, 64};
    const auto bytes = [&](double encoder, double of_grid) {
        const x2ct::MemoryNeeds needs{
            .encoder = encoder, .grid = of_grid, .conditions = 20, .denoiser = 70, .lift = 90};
        return x2ct::plan_tiles(grid, 8, 47, 11, needs, std::int64_t{1} << 40).bytes;
    };
    constexpr double kRegisters = 12.0 * 64 * 64 * 64;
    CHECK(bytes(kRegisters, 0) == bytes(0, 12) && bytes(kRegisters, 12) == bytes(0, 12));
    CHECK(bytes(2 * kRegisters, 12) == bytes(0, 12) + static_cast<std::int64_t>(kRegisters));
}

}  // namespace

TESTS(a_cut_covers_the_grid_once, seams_move_between_rows, tiles_give_what_the_whole_gives, a_thinner_halo_tells,
      a_lift_by_tiles_gives_what_the_whole_gives, a_run_ends_between_tiles_and_the_sampler_goes_on, misfits_are_refused,
      a_plan_fits_its_budget_and_uses_it, an_encoding_is_over_when_a_run_begins)
