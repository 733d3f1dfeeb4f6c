// The C interface, and the pipeline behind it, over networks with a closed form: no runtime is needed.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "capi/handles.h"
#include "check.h"
#include "tiny.h"
#include "x2ct/error.h"
#include "x2ct/noise.h"
#include "x2ct/sampler.h"
#include "x2ct/x2ct.h"

namespace {

constexpr std::size_t kVoxels = tiny::kGrid * tiny::kGrid * tiny::kGrid;

// A sampler over the analytic backend, as x2ct_sampler_open makes one over a real one.
struct Opened {
    explicit Opened(const x2ct::PipelineOptions& options = {}, const std::string& model = tiny::model_json()) {
        tiny::write(folder, model);
        sampler = std::make_unique<x2ct_sampler>(
            std::make_unique<x2ct::Pipeline>(x2ct::open_bundle(folder.path()), backend, options));
    }

    x2ct_status see(float value, int32_t slot = 0) const {
        const std::vector<float> pixels(tiny::kDetector * tiny::kDetector, value);
        const x2ct_xray xray = {slot, tiny::kDetector, tiny::kDetector, pixels.data(), nullptr, 0, nullptr};
        return x2ct_sampler_set_xrays(sampler.get(), &xray, 1);
    }

    // A block of one value in the middle of both views, all of it within the grid; `scale` of it in the lateral.
    x2ct_status see_block(float scale = 1, const std::uint8_t* measured = nullptr) const {
        std::vector<float> pixels[2];
        x2ct_xray xrays[2];
        for (int32_t slot = 0; slot < 2; ++slot) {
            pixels[slot].assign(tiny::kDetector * tiny::kDetector, 0);
            for (int row = 7; row < 17; ++row) {
                for (int column = 7; column < 17; ++column) {
                    pixels[slot][row * tiny::kDetector + column] = slot == 0 ? 1 : scale;
                }
            }
            const bool calibrated = slot == 0 || scale == 1;
            xrays[slot] = {slot, tiny::kDetector, tiny::kDetector, pixels[slot].data(), nullptr, !calibrated, measured};
        }
        return x2ct_sampler_set_xrays(sampler.get(), xrays, 2);
    }

    std::vector<float> run(const x2ct_run_options* options = nullptr, x2ct_status wanted = X2CT_OK) const {
        std::vector<float> hu(static_cast<std::size_t>(sampler->pipeline->voxels()));
        const x2ct_status found = x2ct_sampler_run(sampler.get(), options, hu.data(), hu.size());
        CHECK(found == wanted);
        CHECK((found == X2CT_OK) == (std::strlen(x2ct_last_error()) == 0));
        return hu;
    }

    tiny::Folder folder;
    tiny::AnalyticBackend backend;
    std::unique_ptr<x2ct_sampler> sampler;
};

x2ct_run_options run_options() {
    x2ct_run_options options;
    CHECK(x2ct_run_options_init(&options, sizeof options, X2CT_ABI) == X2CT_OK);
    return options;
}

bool said(const char* part) { return std::strstr(x2ct_last_error(), part) != nullptr; }

void a_run_gives_what_the_xrays_say() {
    const Opened one;
    CHECK(one.see(1) == X2CT_OK);
    auto options = run_options();
    options.mean = 1;
    const float expected = 1500 * std::tanh(0.5f);  // one view of two
    const auto mean = one.run(&options);
    for (std::size_t i = 0; i < kVoxels; i += 7) CHECK_CLOSE(mean[i], expected, 150);
    const auto sample = one.run();
    CHECK(sample == one.run());
    options = run_options();
    options.seed = 1;
    CHECK(sample != one.run(&options));
    options.seed = 0, options.steps = 3, options.schedule = "tuned";
    CHECK(sample != one.run(&options));
}

void geometry_is_told() {
    const Opened one;
    int64_t shape[3];
    double spacing[3], matrix[12], again[12];
    int32_t views = 0;
    x2ct_detector detector;
    CHECK(x2ct_sampler_grid(one.sampler.get(), shape, spacing) == X2CT_OK && shape[2] == tiny::kGrid);
    CHECK(spacing[0] == 10);
    CHECK(x2ct_sampler_views(one.sampler.get(), &views) == X2CT_OK && views == 2);
    CHECK(x2ct_sampler_view(one.sampler.get(), 1, &detector, matrix) == X2CT_OK && detector.rows == tiny::kDetector);
    CHECK(x2ct_parallel_view(90, &detector, again) == X2CT_OK && std::equal(matrix, matrix + 12, again));
    CHECK(x2ct_cone_view(0, 1500, 1000, &detector, again) == X2CT_BAD_INPUT && said("sdd_mm"));
    CHECK(x2ct_sampler_view(one.sampler.get(), 2, nullptr, nullptr) == X2CT_BAD_INPUT && said("slot"));
    CHECK(std::strcmp(x2ct_sampler_precision(one.sampler.get()), "f32") == 0);
}

// A picture of any size through its own matrix; here of one value everywhere, so that only its border tells.
void a_matrix_brings_any_picture() {
    const Opened one;
    const x2ct_detector detector = {50, 40, 4, 5, {0, 0, 0}};
    double matrix[12];
    CHECK(x2ct_cone_view(0, 1500, 1800, &detector, matrix) == X2CT_OK);
    const std::vector<float> pixels(50 * 40, 2.0f);
    x2ct_xray xray = {0, 50, 40, pixels.data(), matrix, 0, nullptr};
    CHECK(x2ct_sampler_set_xrays(one.sampler.get(), &xray, 1) == X2CT_OK);
    const auto before = one.run();
    xray.matrix = nullptr;
    CHECK(x2ct_sampler_set_xrays(one.sampler.get(), &xray, 1) == X2CT_BAD_INPUT && said("without a matrix"));
    CHECK(one.run() == before);  // what is refused changes nothing
}

void callbacks_are_called_and_may_end_a_run() {
    struct Seen {
        int steps = 0, previews = 0;
        int until = 100;
    };
    const Opened one;
    one.see(1);
    const auto wanted = one.run();
    Seen seen;
    auto options = run_options();
    options.user_data = &seen;
    options.progress = [](void* user, int32_t step, int32_t, double) {
        auto& told = *static_cast<Seen*>(user);
        told.steps = step;
        return static_cast<int>(step >= told.until);
    };
    options.preview = [](void* user, int32_t, int32_t, double, const float* hu, std::size_t count) {
        static_cast<Seen*>(user)->previews += count == kVoxels && hu[0] >= -1000 && hu[0] <= 1500;
        return 0;
    };
    options.preview_every = 2;
    CHECK(one.run(&options) == wanted);
    CHECK(seen.steps == 4 && seen.previews == 2);
    seen.until = 2;
    one.run(&options, X2CT_CANCELLED);
    CHECK(seen.steps == 2);
    options = run_options();
    options.preview = [](void*, int32_t, int32_t, double, const float*, std::size_t) { return 1; };
    one.run(&options, X2CT_CANCELLED);
    CHECK(one.run() == wanted);
}

void a_token_ends_a_run_from_another_thread() {
    struct Wait {
        std::atomic<int> steps = 0;
    } wait;
    const Opened one;
    one.see(1);
    x2ct_cancel* token = x2ct_cancel_create();
    auto options = run_options();
    options.cancel = token;
    options.steps = 1000;
    options.user_data = &wait;
    options.progress = [](void* user, int32_t, int32_t, double) {
        ++static_cast<Wait*>(user)->steps;
        return 0;
    };
    std::jthread other([&] {
        while (wait.steps < 2) std::this_thread::yield();
        x2ct_cancel_now(token);
    });
    one.run(&options, X2CT_CANCELLED);
    CHECK(wait.steps >= 2 && wait.steps < 1000);
    other.join();
    x2ct_cancel_free(token);
    one.run();
}

void a_token_that_was_used_before_ends_every_later_run_at_once() {
    const Opened one;
    one.see(1);
    x2ct_cancel* token = x2ct_cancel_create();
    x2ct_cancel_now(token);
    int steps = 0;
    auto options = run_options();
    options.cancel = token;
    options.user_data = &steps;
    options.progress = [](void* user, int32_t, int32_t, double) {
        ++*static_cast<int*>(user);
        return 0;
    };
    one.run(&options, X2CT_CANCELLED);
    one.run(&options, X2CT_CANCELLED);
    CHECK(steps == 0);
    x2ct_cancel_free(token);
}

// Refused and not queued.
void a_handle_that_is_busy_is_refused() {
    struct Inner {
        x2ct_sampler* sampler;
        std::vector<float> hu = std::vector<float>(kVoxels);
        int refused = 0;
    };
    const Opened one;
    one.see(1);
    const auto wanted = one.run();
    Inner inner{one.sampler.get()};
    auto options = run_options();
    options.user_data = &inner;
    options.progress = [](void* user, int32_t, int32_t, double) {
        auto& self = *static_cast<Inner*>(user);
        std::jthread([&] {
            const x2ct_status status = x2ct_sampler_run(self.sampler, nullptr, self.hu.data(), kVoxels);
            self.refused += status == X2CT_FAILED && said("busy");
        }).join();
        return 0;
    };
    CHECK(one.run(&options) == wanted);
    CHECK(inner.refused == 4);
}

// The mask is copied, and says which rays count.
void what_is_not_measured_does_not_count() {
    const Opened one;
    auto options = run_options();
    options.consistency = "last";
    CHECK(one.see_block() == X2CT_OK);
    const auto all = one.run(&options);
    {
        const std::vector<std::uint8_t> everywhere(tiny::kDetector * tiny::kDetector, 1);
        CHECK(one.see_block(1, everywhere.data()) == X2CT_OK);
    }
    CHECK(one.run(&options) == all);
    std::vector<std::uint8_t> half(tiny::kDetector * tiny::kDetector, 1);
    std::fill_n(half.begin(), half.size() / 2, std::uint8_t{0});
    CHECK(one.see_block(1, half.data()) == X2CT_OK);
    CHECK(one.run(&options) != all);
}

void a_device_that_is_not_here_is_missing_and_one_that_is_none_wrong_use() {
    const tiny::Folder folder;
    tiny::write(folder);
    CHECK(x2ct_check_bundle(folder.path().c_str()) == X2CT_OK && x2ct_check_bundle(nullptr) == X2CT_BAD_INPUT);
    x2ct_sampler_options options;
    x2ct_sampler_options_init(&options, sizeof options, X2CT_ABI);
    options.bundle = folder.path().c_str();
    options.library_dir = folder.path().c_str();
    options.device = "cuda";
    x2ct_sampler* sampler = nullptr;
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_MISSING_RUNTIME && said("cuda") && sampler == nullptr);
    options.device = "tpu";
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_BAD_INPUT && said("tpu"));
    CHECK(x2ct_sampler_precision(nullptr) == nullptr);
    CHECK(x2ct_sampler_grid(nullptr, nullptr, nullptr) == X2CT_BAD_INPUT);
}

void two_handles_in_two_threads_do_not_disturb_each_other() {
    const Opened alone;
    alone.see(1);
    const auto wanted = alone.run();
    std::atomic<int> same = 0;
    {
        std::vector<std::jthread> threads;
        threads.reserve(2);
        for (int t = 0; t < 2; ++t) {
            threads.emplace_back([&] {
                const Opened mine;
                mine.see(1);
                for (int repeat = 0; repeat < 3; ++repeat) same += mine.run() == wanted;
                CHECK(x2ct_check_bundle("nowhere") == X2CT_BAD_INPUT && said("nowhere"));
            });
        }
    }
    CHECK(same == 6);
}

// A grid of one's own: tile by tile where the budget asks for it, and the same to the bit, for this network looks no
// further than a voxel.
void a_grid_within_a_budget_is_the_whole_in_tiles() {
    x2ct::PipelineOptions options;
    options.shape = {64, 32, 48};
    options.voxel_mm = {3, 3, 4};
    options.threads = 1;
    const Opened whole(options);
    int64_t shape[3], tile[3], count[3];
    double spacing[3];
    CHECK(x2ct_sampler_grid(whole.sampler.get(), shape, spacing) == X2CT_OK && shape[0] == 64 && spacing[2] == 4);
    CHECK(x2ct_sampler_tiles(whole.sampler.get(), tile, count) == X2CT_OK && tile[0] == 64 && count[0] == 1);
    whole.see(1);
    std::unique_ptr<Opened> tiled;  // by the first budget that something fits into
    for (options.memory = 168 << 20; !tiled; options.memory += 100 << 10) {
        try {
            tiled = std::make_unique<Opened>(options);
        } catch (const x2ct::OutOfMemory&) {
            CHECK(options.memory < 288 << 20);
        }
    }
    CHECK(x2ct_sampler_tiles(tiled->sampler.get(), tile, count) == X2CT_OK);
    CHECK(count[0] * count[1] * count[2] > 1 && tile[0] * tile[1] * tile[2] < 64 * 32 * 48);
    tiled->see(1);
    const auto wanted = whole.run();
    CHECK(tiled->run() == wanted);
    // A run that keeps more volumes has no room, and says so; the next has.
    auto many = run_options();
    many.samples = 2;
    tiled->run(&many, X2CT_OUT_OF_MEMORY);
    CHECK(said("expected at least"));
    CHECK(tiled->run() == wanted);
    tiled->see(2);
    CHECK(tiled->run() != wanted);
    options.memory = 0;
    options.shape = {60, 32, 48};
    CHECK_THROWS(x2ct::InputError, Opened(options));
}

void samples_are_the_single_ones_their_mean_and_their_spread() {
    struct Seen {
        std::vector<std::vector<float>> samples;
        int32_t step = 0, total = 0;
        std::size_t until = 100;
    } seen;
    const Opened one;
    one.see(1);
    std::vector<float> deviation(kVoxels);
    auto options = run_options();
    options.sample = 3;
    options.samples = 4;
    options.deviation = deviation.data();
    options.user_data = &seen;
    options.each = [](void* user, int32_t sample, const float* hu, std::size_t count) {
        auto& told = *static_cast<Seen*>(user);
        CHECK(static_cast<std::size_t>(sample) == told.samples.size() && count == kVoxels);
        told.samples.emplace_back(hu, hu + count);
        return static_cast<int>(told.samples.size() >= told.until);
    };
    options.progress = [](void* user, int32_t step, int32_t total, double) {
        auto& told = *static_cast<Seen*>(user);
        CHECK(step == told.step + 1);
        told.step = step, told.total = total;
        return 0;
    };
    const auto mean = one.run(&options);
    CHECK(seen.samples.size() == 4 && seen.step == 16 && seen.total == 16);
    for (std::uint32_t k = 0; k < 4; ++k) {
        auto single = run_options();
        single.sample = 3 + k;
        CHECK(one.run(&single) == seen.samples[k]);
    }
    for (std::size_t i = 0; i < kVoxels; i += 5) {
        double sum = 0, squares = 0;
        for (const auto& sample : seen.samples) sum += sample[i];
        for (const auto& sample : seen.samples) squares += (sample[i] - sum / 4) * (sample[i] - sum / 4);
        CHECK_CLOSE(mean[i], sum / 4, 0.01);
        CHECK_CLOSE(deviation[i], std::sqrt(squares / 3), 0.01);
    }
    seen = {};
    seen.until = 2;
    one.run(&options, X2CT_CANCELLED);
    CHECK(seen.samples.size() == 2);
    options.samples = 0;
    one.run(&options, X2CT_BAD_INPUT);
    CHECK(said("samples"));
    auto single = run_options();
    single.deviation = deviation.data();
    one.run(&single);
    CHECK(std::ranges::all_of(deviation, [](float value) { return value == 0; }));
}

void a_sample_can_be_pulled_towards_its_xrays() {
    const Opened one;
    x2ct_pull pull;
    CHECK(one.see_block() == X2CT_OK);
    const auto off = one.run();
    CHECK(x2ct_sampler_pull(one.sampler.get(), 0, &pull) == X2CT_BAD_INPUT && said("pulled"));
    auto options = run_options();
    CHECK(options.gamma > 0 && std::strcmp(options.consistency, "off") == 0);
    options.consistency = "every";
    options.gamma = 0;
    CHECK(one.run(&options) == off);
    options.gamma = 100;
    const auto every = one.run(&options);
    for (const int32_t slot : {0, 1}) {
        CHECK(x2ct_sampler_pull(one.sampler.get(), slot, &pull) == X2CT_OK);
        CHECK(pull.rays > 0.5 && pull.scale == 1 && pull.offset == 0 && pull.rms_after < 0.5 * pull.rms_before);
    }
    CHECK(x2ct_sampler_pull(one.sampler.get(), 2, &pull) == X2CT_BAD_INPUT);
    options.consistency = "last";
    const auto last = one.run(&options);
    options.consistency = "4";
    CHECK(one.run(&options) == last && last != every && last != off);
    options.consistency = "2,4";
    CHECK(one.run(&options) != last);
    options.consistency = "1,2,3,4";
    CHECK(one.run(&options) == every);
    options.consistency = "4,5";
    one.run(&options, X2CT_BAD_INPUT);
    CHECK(said("found 5, expected 1 to 4"));
    options.consistency = "now";
    one.run(&options, X2CT_BAD_INPUT);
    options.consistency = "last", options.gamma = std::nan("");
    one.run(&options, X2CT_BAD_INPUT);
    CHECK(said("gamma"));
    CHECK(one.run() == off);
}

// What can't be known is refused, and leaves the sampler usable. That a fit is found where there is one is shown by
// test_consistency.cpp: this network's D has nothing of the body's shape.
void xrays_that_say_too_little_are_refused() {
    const Opened one;
    auto options = run_options();
    options.consistency = "last";
    CHECK(one.see_block(2) == X2CT_OK);
    one.run(&options, X2CT_FAILED);
    CHECK(said("fit of the uncalibrated X-ray"));
    const std::vector<std::uint8_t> nothing(tiny::kDetector * tiny::kDetector, 0);
    CHECK(one.see_block(1, nothing.data()) == X2CT_OK);
    one.run(&options, X2CT_BAD_INPUT);
    CHECK(said("rays: found none"));
    CHECK(one.see(1) == X2CT_OK);  // one view can't tell where the body ends
    one.run(&options, X2CT_BAD_INPUT);
    CHECK(said("rays: found none"));
    one.run();
}

void wrong_use_is_named() {
    const Opened one;
    std::vector<float> hu(kVoxels);
    CHECK(x2ct_sampler_run(one.sampler.get(), nullptr, hu.data(), kVoxels) == X2CT_BAD_INPUT && said("set_xrays"));
    one.see(1);
    CHECK(x2ct_sampler_run(nullptr, nullptr, hu.data(), kVoxels) == X2CT_BAD_INPUT && said("sampler"));
    CHECK(x2ct_sampler_run(one.sampler.get(), nullptr, nullptr, kVoxels) == X2CT_BAD_INPUT && said("hu"));
    CHECK(x2ct_sampler_run(one.sampler.get(), nullptr, hu.data(), 5) == X2CT_BAD_INPUT && said("count"));
    auto options = run_options();
    options.solver = "magic";
    one.run(&options, X2CT_BAD_INPUT);
    CHECK(said("magic"));
    options = run_options();
    options.steps = -1;
    one.run(&options, X2CT_BAD_INPUT);
    options = run_options();
    options.preview_every = 0;
    one.run(&options, X2CT_BAD_INPUT);
    options = run_options();
    options.schedule = "tuned";
    one.run(&options, X2CT_BAD_INPUT);
    options.struct_size = 0;
    one.run(&options, X2CT_BAD_INPUT);
    CHECK(said("init"));
    CHECK(one.see(1, 7) == X2CT_BAD_INPUT && said("slot"));
    CHECK(one.see(std::nanf("")) == X2CT_BAD_INPUT && said("line integrals"));
    CHECK(x2ct_sampler_set_xrays(one.sampler.get(), nullptr, 0) == X2CT_BAD_INPUT && said("none"));
    const std::vector<float> pixels(tiny::kDetector * tiny::kDetector, 1.0f);
    const x2ct_xray xray = {0, tiny::kDetector, tiny::kDetector, pixels.data(), nullptr, 0, nullptr};
    const x2ct_xray twice[] = {xray, xray};
    CHECK(x2ct_sampler_set_xrays(one.sampler.get(), twice, 2) == X2CT_BAD_INPUT && said("twice"));
    one.run();
    x2ct_sampler_close(nullptr);
    x2ct_cancel_free(nullptr);
}

// A program that was built with a shorter struct gets defaults for the rest; one with a longer or other one is refused.
void options_say_what_they_are() {
    x2ct_sampler_options options;
    CHECK(x2ct_sampler_options_init(&options, sizeof options, X2CT_ABI) == X2CT_OK);
    CHECK(x2ct_sampler_options_init(&options, sizeof options, X2CT_ABI + 1) == X2CT_BAD_INPUT && said("abi"));
    CHECK(options.struct_size == 0);
    CHECK(x2ct_sampler_options_init(&options, sizeof options + 8, X2CT_ABI) == X2CT_BAD_INPUT && said("newer"));
    x2ct_sampler* sampler = nullptr;
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_BAD_INPUT && said("init") && sampler == nullptr);
    x2ct_sampler_options_init(&options, sizeof options, X2CT_ABI);
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_BAD_INPUT && said("bundle"));
    const tiny::Folder folder;
    tiny::write(folder);
    options.bundle = folder.path().c_str();
    options.backend = "abacus";
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_BAD_INPUT && said("abacus"));
    options.backend = "openvino";
    options.library_dir = folder.path().c_str();
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_MISSING_RUNTIME && said("no libx2ct_openvino"));
    CHECK(x2ct_check_backend("auto", nullptr, folder.path().c_str()) == X2CT_MISSING_RUNTIME);
    for (const int status : {0, 1, 2, 3, 4, 130}) CHECK(std::strlen(x2ct_status_text(x2ct_status(status))) > 3);
    CHECK(x2ct_abi() == X2CT_ABI && std::strlen(x2ct_version()) > 4);
}

void levels_churn_and_unit_reach_the_run() {
    const Opened one;
    CHECK(one.see(1) == X2CT_OK);
    auto options = run_options();
    const double sigmas[] = {10, 2, 0.5};
    options.sigmas = sigmas, options.sigma_count = 3;
    CHECK(one.run(&options) != one.run());
    options.solver = "heun";
    const auto calm = one.run(&options);
    options.churn = 1;
    CHECK(one.run(&options) != calm);
    options.solver = "euler";
    one.run(&options, X2CT_BAD_INPUT);
    CHECK(said("churn"));
    options.churn = 0, options.steps = 4;
    one.run(&options, X2CT_BAD_INPUT);
    CHECK(said("as many as noise levels"));
    options.steps = 0, options.sigma_count = 0;
    one.run(&options, X2CT_BAD_INPUT);
    CHECK(said("sigma_count"));
    options = run_options();
    options.raw = 1;
    CHECK(std::ranges::max(one.run(&options)) < 3 && std::ranges::max(one.run()) > 100);
}

// In single precision, squares of the samples themselves would leave nothing of it.
void samples_of_large_offset_keep_their_spread() {
    constexpr int kSamples = 50, kCount = 500;
    std::vector<float> mean(kCount), deviation(kCount), one(kCount);
    std::vector<double> sums(kCount), squares(kCount);
    x2ct::Ensemble ensemble(mean.data(), deviation.data(), kCount, 1);
    for (std::uint32_t k = 0; k < kSamples; ++k) {
        x2ct::normal(one.data(), 0, kCount, {0, 0, k});
        for (int i = 0; i < kCount; ++i) {
            one[i] += 30000;
            sums[i] += one[i] - 30000.0;
            squares[i] += (one[i] - 30000.0) * (one[i] - 30000.0);
        }
        ensemble.add(one.data());
    }
    ensemble.finish();
    for (int i = 0; i < kCount; ++i) {
        const double wanted = std::sqrt((squares[i] - sums[i] * sums[i] / kSamples) / (kSamples - 1));
        CHECK_CLOSE(mean[i], 30000 + sums[i] / kSamples, 0.01);
        CHECK_CLOSE(deviation[i], wanted, 0.01);
    }
}

void names_are_listed() {
    using Names = std::vector<std::string>;
    const auto keep = [](void* user, const char* name, const char*) { static_cast<Names*>(user)->emplace_back(name); };
    Names solvers, schedules, backends, devices;
    CHECK(x2ct_list_solvers(keep, &solvers) == X2CT_OK && std::ranges::count(solvers, "heun") == 1);
    CHECK(x2ct_list_schedules(keep, &schedules) == X2CT_OK && std::ranges::count(schedules, "log-snr") == 1);
    CHECK(x2ct_list_backends("/nonexistent", keep, &backends) == X2CT_OK);
    for (const char* name : {"openvino", "onnxruntime", "tensorrt", "torch"}) {
        CHECK(std::ranges::count(backends, name) == 1);
    }
    CHECK(x2ct_list_devices("/nonexistent", keep, &devices) == X2CT_OK && devices.front() == "cpu");
    CHECK(x2ct_list_solvers(nullptr, nullptr) == X2CT_BAD_INPUT && said("call"));
}

// They are code, and C has nothing that could tell who made them.
void engines_need_a_folder_and_trust() {
    const tiny::Folder folder;
    tiny::write(folder);
    x2ct_sampler_options options;
    x2ct_sampler_options_init(&options, sizeof options, X2CT_ABI);
    options.bundle = folder.path().c_str();
    options.backend = "tensorrt";
    x2ct_sampler* sampler = nullptr;
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_BAD_INPUT && said("engines: found no folder"));
    options.engines = folder.path().c_str();
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_BAD_INPUT && said("without trust"));
    options.trust = 1;
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_MISSING_RUNTIME && said("engines: found none"));
    options.backend = "torch", options.provider = "abacus";
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_BAD_INPUT && said("abacus"));
    options.backend = "openvino", options.provider = nullptr;
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_BAD_INPUT && said("engines: found a folder for backend"));
}

using Lines = std::vector<std::pair<x2ct::LogLevel, std::string>>;

bool has(const Lines& lines, x2ct::LogLevel level, const std::string& part) {
    return std::ranges::any_of(
        lines, [&](const auto& one) { return one.first == level && one.second.find(part) != one.second.npos; });
}

// What a host can't see otherwise: what was chosen, and what is slower or less exact than was asked for.
void what_is_chosen_and_given_up_is_logged() {
    Lines lines;
    x2ct::PipelineOptions options;
    options.log = [&](x2ct::LogLevel level, const std::string& line) { lines.emplace_back(level, line); };
    const Opened whole(options);
    CHECK(lines.size() == 1 && has(lines, x2ct::LogLevel::info, "f32 on cpu, runtime analytic"));
    CHECK(has(lines, x2ct::LogLevel::info, "the grid 16 x 16 x 16"));
    lines.clear();
    whole.see(1);
    CHECK(lines.size() == 1 && has(lines, x2ct::LogLevel::info, "found 1 of the model's 2 views"));
    lines.clear();
    whole.see_block();
    CHECK(lines.empty());
    whole.run();
    CHECK(lines.size() == 1 && has(lines, x2ct::LogLevel::info, "schedule log-snr, 4 evaluations, seed 0"));
    // Too little memory for the whole, and a halo that is too thin.
    options.shape = {64, 32, 48};
    options.halo = 0;
    std::string model = tiny::model_json();  // of networks that look 8 voxels around
    const std::string radius = R"("receptive_radius": 0)";
    for (std::size_t at = 0; (at = model.find(radius, at)) != model.npos; ++at) model[at + radius.size() - 1] = '8';
    std::unique_ptr<Opened> tiled;
    for (options.memory = 168 << 20; !tiled; options.memory += 100 << 10) {
        lines.clear();
        try {
            tiled = std::make_unique<Opened>(options, model);
        } catch (const x2ct::OutOfMemory&) {
            CHECK(options.memory < 288 << 20);
        }
    }
    CHECK(has(lines, x2ct::LogLevel::info, "as the grid 64 x 32 x 48 does not fit in memory"));
    CHECK(has(lines, x2ct::LogLevel::warning, "less than the network's reach"));
}

void a_callback_in_c_gets_lines_and_levels() {
    const tiny::Folder folder;
    tiny::write(folder);
    x2ct_sampler_options options;
    x2ct_sampler_options_init(&options, sizeof options, X2CT_ABI);
    CHECK(options.log == nullptr);
    options.bundle = folder.path().c_str();
    options.library_dir = folder.path().c_str();  // without a backend
    Lines lines;
    options.log_user_data = &lines;
    options.log = [](void* user, x2ct_log_level level, const char* line) {
        CHECK(level == X2CT_LOG_INFO);
        static_cast<Lines*>(user)->emplace_back(x2ct::LogLevel::info, line);
    };
    x2ct_sampler* sampler = nullptr;
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_MISSING_RUNTIME);
    CHECK(lines.size() == 1 && has(lines, x2ct::LogLevel::info, "device cpu (auto), backend openvino (auto)"));
    options.struct_size = offsetof(x2ct_sampler_options, log);  // of a program that was built before there was one
    CHECK(x2ct_sampler_open(&options, &sampler) == X2CT_MISSING_RUNTIME && lines.size() == 1);
}

}  // namespace

TESTS(a_grid_within_a_budget_is_the_whole_in_tiles, samples_are_the_single_ones_their_mean_and_their_spread,
      a_sample_can_be_pulled_towards_its_xrays, xrays_that_say_too_little_are_refused, a_run_gives_what_the_xrays_say,
      geometry_is_told, a_matrix_brings_any_picture, callbacks_are_called_and_may_end_a_run,
      a_token_ends_a_run_from_another_thread, a_token_that_was_used_before_ends_every_later_run_at_once,
      a_handle_that_is_busy_is_refused, what_is_not_measured_does_not_count,
      a_device_that_is_not_here_is_missing_and_one_that_is_none_wrong_use,
      two_handles_in_two_threads_do_not_disturb_each_other, wrong_use_is_named, options_say_what_they_are,
      levels_churn_and_unit_reach_the_run, samples_of_large_offset_keep_their_spread, names_are_listed,
      engines_need_a_folder_and_trust, what_is_chosen_and_given_up_is_logged, a_callback_in_c_gets_lines_and_levels)
