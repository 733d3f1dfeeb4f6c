#include "x2ct/networks.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string_view>
#include <utility>
#include <vector>

#include "core/system.h"
#include "x2ct/error.h"
#include "x2ct/tiles.h"

namespace x2ct {
namespace {

using Files = std::map<std::string, std::string>;

constexpr const char* kMakes = "; x2ct build and x2ct export make them";

std::string stem_of(const Graph& graph) { return std::filesystem::path(graph.file).stem().string(); }

// Each graph's file in the folder; none unless all are there.
Files files_in(const std::string& folder, const Bundle& bundle, const std::string& suffix) {
    Files files;
    for (const Graph* const graph : {&bundle.encoder, &bundle.lift, &bundle.denoiser}) {
        const auto path = std::filesystem::path(folder) / (stem_of(*graph) + suffix);
        std::error_code error;
        if (!std::filesystem::is_regular_file(path, error)) return {};
        files[graph->file] = path.string();
    }
    return files;
}

std::vector<std::string> suffixes(const std::string& backend, const std::string& provider) {
    if (backend == "tensorrt") return {".plan"};
    if (provider == "aoti") return {".pt2"};
    if (provider == "torchscript") return {".pt"};
    if (provider.empty()) return {".pt2", ".pt"};
    throw InputError("provider: found \"" + provider + "\" for torch, expected torchscript or aoti");
}

}  // namespace

void use_engines(PipelineOptions& options, const Bundle& bundle, const std::string& backend, const std::string& folder,
                 bool trust) {
    const bool typed = backend == "onnxruntime" && (options.precision == "bf16" || options.precision == "f16");
    const bool is_code = backend == "tensorrt" || backend == "torch";
    if (folder.empty()) {
        if (is_code) throw InputError("engines: found no folder, expected that of " + backend + "'s engines" + kMakes);
        return;
    }
    if (typed) {
        const auto path =
            std::filesystem::path(folder) / (stem_of(bundle.denoiser) + "." + options.precision + ".onnx");
        options.engines[bundle.denoiser.file] = path.string();
        return;
    }
    if (!is_code) {
        throw InputError("engines: found a folder for backend " + backend +
                         ", expected one for tensorrt, torch, or onnxruntime in bf16 or f16");
    }
    if (!trust) {
        throw InputError(
            "engines: found a folder without trust, expected trust: compiled engines are code, and do what "
            "their maker wants");
    }
    for (const std::string& suffix : suffixes(backend, options.provider)) {
        options.engines = files_in(folder, bundle, suffix);
        if (!options.engines.empty()) break;
    }
    if (options.engines.empty()) {
        throw MissingRuntime("engines: found none of model " + bundle.name + " for " + backend + " in " + folder +
                             kMakes);
    }
    if (backend == "torch") options.provider.clear();  // the file says what it is
}

namespace {

// A program and the runtime, without weights, and some to spare: Python with OpenVINO has 139 MiB once it has compiled.
constexpr std::int64_t kProcessBytes = 168 << 20;
// More a voxel than any network of today takes whole: with that much free there is nothing to plan.
constexpr std::int64_t kAmpleBytes = 512;
constexpr std::int64_t kProbe = 64;  // the side of the patch that the networks are compiled for to see what they take
constexpr int kConsistencyVolumes = 4;  // attenuation before and after the pull, that of the first, one to spare

double voxels(const Index& index) {
    return static_cast<double>(index[0]) * static_cast<double>(index[1]) * static_cast<double>(index[2]);
}

// A declared tensor ([1, 8, "X/4", ...]) for a patch and one sample.
Shape resolved(const Tensor& tensor, const Index& patch) {
    Shape shape = {1};
    for (std::size_t axis = 1; axis < tensor.shape.size(); ++axis) {
        const auto& [size, free] = tensor.shape[axis];
        if (free.empty()) {
            shape.push_back(size);
            continue;
        }
        const std::size_t letter = std::string_view("XYZ").find(free.front());
        std::int64_t factor = 1;
        if (free.size() > 2) std::from_chars(free.data() + 2, free.data() + free.size(), factor);
        if (letter == std::string_view::npos || factor < 1) {
            throw InputError("bundle: " + to_string(tensor) + ": found a free axis " + free +
                             ", expected X, Y or Z, or one of them divided");
        }
        shape.push_back(patch[letter] / factor);
    }
    return shape;
}

// How many values of the outputs there are for each voxel of the grid.
double per_voxel(const Graph& graph) {
    constexpr Index kCell = {1 << 10, 1 << 10, 1 << 10};
    double values = 0;
    for (const Tensor& output : graph.outputs) {
        values += static_cast<double>(volume_of(resolved(output, kCell))) / voxels(kCell);
    }
    return values;
}

// What an evaluation holds, in bytes; ample for an input of so many values where the runtime doesn't tell.
double scratch(const Network& network, double values) {
    const std::int64_t told = network.scratch_bytes();
    return told < 0 ? static_cast<double>(kAmpleBytes) * values : static_cast<double>(told);
}

Bundle::Grid grid_of(const Bundle& bundle, const PipelineOptions& options) {
    Bundle::Grid grid = bundle.grid;
    if (options.shape != std::array<std::int64_t, 3>{}) grid.shape = options.shape;
    if (options.voxel_mm != std::array<double, 3>{}) grid.spacing_mm = options.voxel_mm;
    constexpr std::int64_t kMostVoxels = std::int64_t{1} << 40;
    std::int64_t count = 1;
    for (std::size_t axis = 0; axis < 3; ++axis) {
        const std::int64_t size = grid.shape[axis];
        if (size < 1 || size % bundle.patch.stride != 0 || size > kMostVoxels / count) {
            throw InputError("grid: shape: found " + to_string(Shape(grid.shape.begin(), grid.shape.end())) +
                             ", expected multiples of the model's stride " + std::to_string(bundle.patch.stride));
        }
        count *= size;
        if (!(grid.spacing_mm[axis] > 0 && grid.spacing_mm[axis] < 1e6)) {
            throw InputError("grid: voxel_mm: found " + std::to_string(grid.spacing_mm[axis]) +
                             ", expected lengths above 0");
        }
    }
    return grid;
}

Buffer uploaded(const std::shared_ptr<Device>& device, const std::vector<float>& values) {
    Buffer buffer(device, values.size());
    device->upload(buffer.data(), values.data(), values.size());
    return buffer;
}

}  // namespace

int volumes_kept(const Table& table, bool many, bool preview, bool consistency) {
    const int loop = std::max(static_cast<int>(table.registers().size()), 2);
    return loop + (many ? 2 : 0) + (preview ? 2 : 0) + (consistency ? kConsistencyVolumes : 0);
}

Networks::Networks(Bundle bundle, Backend& backend, PipelineOptions options, std::shared_ptr<Device> device)
    : bundle_(std::move(bundle)),
      grid_(grid_of(bundle_, options)),
      backend_(&backend),
      options_(std::move(options)),
      device_(device ? std::move(device) : cpu_device(options_.threads)) {
    if (options_.device != device_->name()) {
        throw MissingRuntime("device " + options_.device + ": found networks for " + device_->name() +
                             ", expected the device that is named; see open_device");
    }
    if (options_.memory < 0) {
        throw InputError("memory: found " + std::to_string(options_.memory) +
                         ", expected bytes, or 0 for what is free");
    }
    encoder_ = load(bundle_.encoder, "f32",
                    {{"views", views_shape()}, {"valid", {1, static_cast<std::int64_t>(bundle_.views.size())}}});
}

Shape Networks::views_shape() const {
    return {1, static_cast<std::int64_t>(bundle_.views.size()), 1, bundle_.xray.rows, bundle_.xray.columns};
}

TilePlan Networks::plan(int volumes) {
    let_go();
    const std::int64_t stride = bundle_.patch.stride, radius = bundle_.denoiser.receptive_radius;
    const std::int64_t most = *std::ranges::max_element(grid_.shape);
    const std::int64_t reach = radius < 0 ? most : radius;  // without a radius only the whole will do
    const std::int64_t halo = std::min(options_.halo < 0 ? reach : options_.halo, most);
    const bool limited = options_.memory > 0;
    const std::int64_t memory = limited ? options_.memory : device_->free_bytes().value_or(available_bytes());
    const auto ample = static_cast<double>(kProcessBytes) + static_cast<double>(kAmpleBytes) * voxels(grid_.shape);
    counted_ = limited || (memory > 0 && static_cast<double>(memory) < ample);
    if (!counted_) {  // memory is no question
        return plan_tiles(grid_.shape, stride, halo, -1, {0, 0, 1, 1, 0}, std::int64_t{1} << 62);
    }
    Index probe{};
    for (std::size_t axis = 0; axis < 3; ++axis) {
        probe[axis] = std::min(grid_.shape[axis], std::max(stride, kProbe / stride * stride));
    }
    std::int64_t files = 0;
    for (const auto& [name, file] : bundle_.files) files += file.bytes;
    const auto pictures = static_cast<double>(volume_of(views_shape()));
    MemoryNeeds needs;
    needs.fixed = kProcessBytes + 3 * files + 3 * 4 * volume_of(encoder_->outputs().front().shape);
    needs.encoder = scratch(*encoder_, pictures);
    needs.grid = 4.0 * volumes;
    needs.conditions = 4.0 * per_voxel(bundle_.lift);
    needs.denoiser = scratch(*denoiser_for(probe), voxels(probe)) / voxels(probe);
    needs.lift = scratch(*lift_for(probe), voxels(probe)) / voxels(probe);
    // Without a limit the process is there already, and only what is still free counts.
    return plan_tiles(grid_.shape, stride, halo, bundle_.lift.receptive_radius, needs,
                      limited ? memory : memory + kProcessBytes);
}

// What the device recorded stands for networks at addresses that others may get.
void Networks::let_go() noexcept {
    device_->forget();
    sampler_.reset();
    denoiser_.reset();
    lift_.reset();
    conditioned_ = false;
}

void Networks::compile(const TilePlan& plan) {
    let_go();
    plan_ = plan;
    denoiser_ = denoiser_for(plan.denoiser.tile);
    precision_ = denoiser_->precision();
    // Where memory is counted, registers have to make room for what comes after the loop, and for the next lift.
    device_->keep(counted_ ? 0 : static_cast<std::size_t>(voxels(grid_.shape)));
    if (plan.whole()) {
        const auto& [x, y, z] = grid_.shape;
        sampler_ = std::make_shared<Sampler>(denoiser_, device_, Shape{1, 1, x, y, z});
    } else {
        sampler_ =
            std::make_shared<Sampler>(std::make_unique<TiledEvaluator>(denoiser_, device_, plan.denoiser), device_);
    }
}

void Networks::condition_on(const Conditions& ready) {
    if (plan_.in_turn && conditioned_) let_go();  // a run may have filled the denoiser's scratch memory
    if (sampler_) sampler_->set_lifted({});       // the last study's
    if (!lift_) {
        const std::shared_ptr<Network> network = lift_for(plan_.lift.tile);
        lift_precision_ = network->precision();
        lift_ = std::make_shared<Lift>(network, device_, plan_.lift, grid_.spacing_mm);
    }
    show(ready, *lift_);
    if (!plan_.keep) {
        sampler_->set_lift(lift_);
    } else {
        std::vector<Lift::Whole> conditions = lift_->whole();
        if (plan_.in_turn) lift_.reset();
        if (!sampler_) compile(plan_);
        sampler_->set_lifted(std::move(conditions));
    }
    conditioned_ = true;
}

// Encodes the X-rays and hands the lift all but the coordinates; the features stay on the device.
void Networks::show(const Conditions& ready, Lift& lift) {
    const auto slots = static_cast<std::int64_t>(bundle_.views.size());
    const Shape valid = {1, slots};
    const Shape& seen = encoder_->outputs().front().shape;
    const Buffer views = uploaded(device_, ready.views);
    Buffer given = uploaded(device_, ready.valid), features(device_, static_cast<std::size_t>(volume_of(seen)));
    const auto encode = encoder_->session();
    encode->set_input("views", views.data(), views_shape());
    encode->set_input("valid", given.data(), valid);
    encode->set_output("features", features.data(), seen);
    encode->evaluate();
    lift.set_input("features", std::move(features), seen);
    lift.set_input("P", ready.matrices.data(), {1, slots, 3, 4});
    lift.set_input("valid", std::move(given), valid);
}

std::shared_ptr<Network> Networks::denoiser_for(const Index& patch) {
    std::map<std::string, Shape> shapes = {{"x", {1, 1, patch[0], patch[1], patch[2]}}, {"sigma", {1}}};
    for (const Tensor& input : bundle_.denoiser.inputs) {
        if (!shapes.contains(input.name)) shapes[input.name] = resolved(input, patch);
    }
    if (options_.precision == "int8" && bundle_.denoiser.int8.empty()) {
        throw MissingRuntime("precision int8: model " + bundle_.name +
                             " has no ranges for it; find them: x2ct quantize " + bundle_.path + " SHARDS");
    }
    return load(bundle_.denoiser, options_.precision, std::move(shapes), true);
}

std::shared_ptr<Network> Networks::lift_for(const Index& patch) {
    const auto slots = static_cast<std::int64_t>(bundle_.views.size());
    return load(bundle_.lift, "f32",
                {{"features", encoder_->outputs().front().shape},
                 {"P", {1, slots, 3, 4}},
                 {"coords", {1, 3, patch[0], patch[1], patch[2]}},
                 {"valid", {1, slots}}});
}

std::shared_ptr<Network> Networks::load(const Graph& graph, const std::string& precision,
                                        std::map<std::string, Shape> shapes, bool replayed) {
    const auto engine = options_.engines.find(graph.file);
    const std::string path = engine == options_.engines.end() ? bundle_.file_of(graph) : engine->second;
    NetworkOptions options{path, device_->name(), precision, options_.threads, std::move(shapes)};
    options.provider = options_.provider;
    options.provider_options = options_.provider_options;
    options.int8 = graph.int8;
    options.replayed = replayed;
    options.stream = device_->stream();
    return backend_->load(options);
}

}  // namespace x2ct
