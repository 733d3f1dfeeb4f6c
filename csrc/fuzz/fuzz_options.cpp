// The C interface's options: any bytes as structs, sizes and numbers, texts of any content; the answer is a status.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "capi/handles.h"
#include "tests/tiny.h"

namespace {

// Takes values off the fuzzer's bytes; zeros when they are used up.
class Source {
  public:
    Source(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}

    template <typename Number>
    Number take() {
        Number value{};
        const std::size_t size = std::min(left_, sizeof value);
        if (size > 0) std::memcpy(&value, data_, size);
        data_ += size, left_ -= size;
        return value;
    }
    std::string text() {
        std::string value(take<std::uint8_t>() % 24, '\0');
        for (char& c : value) c = take<char>();
        return value;
    }
    // A name that is known, one that is not, or none.
    const char* name(std::vector<std::string>& kept, std::initializer_list<const char*> known) {
        const std::size_t pick = take<std::uint8_t>() % (known.size() + 2);
        if (pick < known.size()) return *(known.begin() + pick);
        return pick == known.size() ? nullptr : kept.emplace_back(text()).c_str();
    }

  private:
    const std::uint8_t* data_;
    std::size_t left_;
};

x2ct_sampler& sampler() {
    static const tiny::Folder folder;
    static tiny::AnalyticBackend backend;
    static x2ct_sampler one = [] {
        tiny::write(folder);
        return x2ct_sampler(std::make_unique<x2ct::Pipeline>(x2ct::open_bundle(folder.path()), backend));
    }();
    return one;
}

void open_anything(Source& source, std::vector<std::string>& kept) {
    x2ct_sampler_options options;
    if (x2ct_sampler_options_init(&options, sizeof options - source.take<std::uint8_t>() % 2, X2CT_ABI) != X2CT_OK)
        return;
    options.struct_size -= source.take<std::uint8_t>() % 4;
    options.bundle = source.name(kept, {"/nonexistent.x2ct", ""});
    options.backend = source.name(kept, {"auto", "openvino"});
    options.device = source.name(kept, {"auto", "cpu", "cuda:0"});
    options.precision = source.name(kept, {"auto", "f32", "bf16"});
    options.threads = source.take<std::int32_t>();
    options.library_dir = source.name(kept, {"/nonexistent"});
    options.runtime_dir = source.name(kept, {"/nonexistent"});
    options.shape[source.take<std::uint8_t>() % 3] = source.take<std::int64_t>();
    options.voxel_mm[source.take<std::uint8_t>() % 3] = source.take<double>();
    options.memory = source.take<std::int64_t>();
    options.halo = source.take<std::int64_t>();
    options.provider = source.name(kept, {"", "torchscript"});
    options.engines = source.name(kept, {"/nonexistent", ""});
    options.trust = source.take<std::uint8_t>() % 2;
    x2ct_sampler* opened = nullptr;
    x2ct_sampler_open(&options, &opened);
    x2ct_sampler_close(opened);
    x2ct_check_backend(options.backend, "/nonexistent", options.runtime_dir);
}

void see_anything(Source& source) {
    double matrix[12];
    const auto detector = source.take<x2ct_detector>();
    const bool has_matrix = source.take<std::uint8_t>() % 2 == 0;
    if (source.take<std::uint8_t>() % 2 == 0) {
        x2ct_cone_view(source.take<double>(), source.take<double>(), source.take<double>(), &detector, matrix);
    } else {
        for (double& value : matrix) value = source.take<double>();
    }
    std::vector<float> pixels(64 * 64, static_cast<float>(source.take<std::uint8_t>()) / 10);
    pixels[source.take<std::uint8_t>()] = source.take<float>();
    x2ct_xray xray = {source.take<std::int8_t>() % 4,
                      source.take<std::uint8_t>() % 66 - 1,
                      source.take<std::uint8_t>() % 66 - 1,
                      pixels.data(),
                      has_matrix ? matrix : nullptr,
                      source.take<std::uint8_t>() % 2,
                      nullptr};
    const std::vector<std::uint8_t> measured(64 * 64, source.take<std::uint8_t>() % 2);
    if (source.take<std::uint8_t>() % 2 == 0) xray.measured = measured.data();
    xray.rows = std::min<std::int64_t>(xray.rows, 64), xray.columns = std::min<std::int64_t>(xray.columns, 64);
    x2ct_sampler_set_xrays(&sampler(), &xray, source.take<std::uint8_t>() % 2);
}

int now_and_then(void* user, std::int32_t step, std::int32_t, double) {
    return static_cast<int>(step >= *static_cast<std::uint8_t*>(user));
}

void run_anything(Source& source, std::vector<std::string>& kept) {
    x2ct_run_options options;
    if (x2ct_run_options_init(&options, sizeof options, X2CT_ABI) != X2CT_OK) std::abort();
    options.struct_size += source.take<std::uint8_t>() % 8 == 0 ? source.take<std::int8_t>() : 0;
    options.seed = source.take<std::uint64_t>();
    options.sample = source.take<std::uint32_t>();
    options.steps = source.take<std::uint8_t>() % 4 == 0 ? source.take<std::int32_t>() : source.take<std::int8_t>();
    options.solver = source.name(kept, {"euler", "heun", "dpmpp-2m", "dpmpp-3m", "unipc-3", "ipndm-4"});
    options.schedule = source.name(kept, {"tuned", "edm", "log-snr", "vp", "iddpm"});
    options.mean = source.take<std::uint8_t>() % 4 == 0;
    std::uint8_t until = 5;
    options.user_data = &until;
    options.progress = now_and_then;  // ends long runs, so that many are tried
    options.preview_every = source.take<std::int32_t>();
    options.consistency = source.name(kept, {"off", "last", "every", "1,3", "2"});
    options.gamma = source.take<std::uint8_t>() % 2 == 0 ? 10 : source.take<double>();
    options.samples = source.take<std::uint8_t>() % 4 == 0 ? source.take<std::int32_t>() : 1;
    options.churn = source.take<std::uint8_t>() % 4 == 0 ? source.take<double>() : 0;
    const double sigmas[] = {source.take<double>(), source.take<double>(), 0.5};
    if (source.take<std::uint8_t>() % 4 == 0)
        options.sigmas = sigmas, options.sigma_count = source.take<std::uint8_t>() % 4;
    options.raw = source.take<std::uint8_t>() % 2;
    std::vector<float> hu(16 * 16 * 16), deviation(hu.size());
    if (source.take<std::uint8_t>() % 2 == 0) options.deviation = deviation.data();
    x2ct_sampler_run(&sampler(), &options, hu.data(), hu.size() - source.take<std::uint8_t>() % 2);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Source source(data, size);
    std::vector<std::string> kept;
    kept.reserve(16);  // their addresses are handed out
    open_anything(source, kept);
    see_anything(source);
    run_anything(source, kept);
    return 0;
}
