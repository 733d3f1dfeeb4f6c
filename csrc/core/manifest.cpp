#include "core/manifest.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "core/fields.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr std::int64_t kMostVoxels = std::int64_t{1} << 30;
constexpr std::size_t kMostStatisticsBytes = 1 << 20;

bool is_name(std::string_view text) { return is_word(text, "._-", 64); }
bool is_file(std::string_view text) { return is_word(text, "._-", 128); }
bool is_choice(std::string_view text) {  // a schedule or solver; the core knows which exist
    return is_word(text, "+-", 32) && std::ranges::none_of(text, [](char c) { return c >= 'A' && c <= 'Z'; });
}
bool is_tensor_name(std::string_view text) {
    if (text.empty() || text.size() > 64 || (text[0] >= '0' && text[0] <= '9')) return false;
    return std::ranges::all_of(text, [](char c) { return c == '_' || is_word(std::string_view(&c, 1), "", 1); });
}
bool is_node_name(std::string_view text) {  // "/net/enter.0/Conv"
    return is_word(text.starts_with('/') ? text.substr(1) : text, "/._-", 127);
}
bool is_dtype(std::string_view text) {
    return text == "float32" || text == "float16" || text == "bfloat16" || text == "int64";
}
bool is_digest(std::string_view text) {
    return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}
bool is_free_extent(std::string_view text) {  // "N", "X/2"
    if (text.empty() || text[0] < 'A' || text[0] > 'Z') return false;
    if (text.size() == 1) return true;
    return text[1] == '/' && text.size() > 2 && text.find_first_not_of("0123456789", 2) == std::string_view::npos;
}
bool is_count(std::string_view text) {
    return !text.empty() && text.size() <= 3 && text[0] != '0' &&
           text.find_first_not_of("0123456789") == std::string_view::npos;
}

template <std::size_t Count, typename Number>
std::array<Number, Count> array_of(const std::vector<Number>& values) {
    std::array<Number, Count> result;
    std::copy_n(values.begin(), Count, result.begin());
    return result;
}

std::string text_of(double value) { return shown(Json(value)); }

template <typename Numbers>
bool rises(const Numbers& numbers) {
    return std::ranges::adjacent_find(numbers, std::greater_equal<>()) == numbers.end();
}

// ---------------------------------------------------------------------------------------------- sections

void read_xray(Fields fields, Bundle& bundle) {
    const auto shape = fields.integers("shape", 2, 8, 8192);
    const auto spacing = fields.numbers("spacing_mm", 2, 2, 0.01, 100);
    bundle.xray = {shape[0], shape[1], spacing[0], spacing[1], fields.numbers("reference_p99", 1, 16, 0.01, 1000)};
    fields.close();
}

void read_geometry(Fields fields, Fields& whole, Bundle& bundle) {
    bundle.views = read_geometry(std::move(fields)).views;
    for (std::size_t i = 0; i < bundle.views.size(); ++i) {
        const View& view = bundle.views[i];
        if (view.rows != bundle.xray.rows || view.columns != bundle.xray.columns) {
            whole.fail("geometry.views[" + std::to_string(i) + "].shape", shown(Json{view.rows, view.columns}),
                       "xray.shape " + shown(Json{bundle.xray.rows, bundle.xray.columns}));
        }
    }
    if (bundle.xray.reference_p99.size() != bundle.views.size()) {
        whole.fail("xray.reference_p99", shown(Json(bundle.xray.reference_p99)),
                   "one for each of " + std::to_string(bundle.views.size()) + " views");
    }
}

void read_patch(Fields fields, Bundle& bundle) {
    Bundle::Patch& patch = bundle.patch;
    patch.stride = fields.integer("stride", 1, 64);
    for (const Json& row : fields.list("sizes", 1, 32)) {
        if (!row.is_array() || row.size() != 3) fields.fail("sizes", shown(row), "3 whole numbers a row");
        auto& size = patch.sizes.emplace_back();
        for (std::size_t axis = 0; axis < 3; ++axis) {
            size[axis] = fields.as_integer("sizes", row[axis], 8, 4096);
            if (size[axis] % patch.stride != 0) {
                fields.fail("sizes", shown(row), "multiples of the stride " + std::to_string(patch.stride));
            }
        }
    }
    patch.probabilities = fields.numbers("probabilities", patch.sizes.size(), patch.sizes.size(), 0, 1);
    double sum = 0;
    for (const double probability : patch.probabilities) sum += probability;
    if (std::abs(sum - 1) > 1e-3) fields.fail("probabilities", text_of(sum), "a sum of 1");
    fields.close();
}

void read_grid(Fields fields, Bundle& bundle) {
    bundle.grid.shape = array_of<3>(fields.integers("shape", 3, 8, 4096));
    const auto [x, y, z] = bundle.grid.shape;
    const std::string found = shown(Json(bundle.grid.shape));
    if (x * y * z > kMostVoxels) fields.fail("shape", found, "at most " + std::to_string(kMostVoxels) + " voxels");
    const std::int64_t stride = bundle.patch.stride;
    if (x % stride || y % stride || z % stride) {
        fields.fail("shape", found, "multiples of the stride " + std::to_string(stride));
    }
    bundle.grid.spacing_mm = array_of<3>(fields.numbers("spacing_mm", 3, 3, 0.01, 100));
    fields.close();
}

void read_intensity(Fields fields, Bundle& bundle) {
    Intensity& map = bundle.intensity;
    map = {fields.numbers("hu", 2, 64, -10'000, 100'000), fields.numbers("x", 2, 64, -1, 1)};
    fields.close();
    if (map.hu.size() != map.x.size()) {
        fields.fail("knots", std::to_string(map.hu.size()) + " HU and " + std::to_string(map.x.size()) + " x", "pairs");
    }
    if (!rises(map.hu)) fields.fail("hu", shown(Json(map.hu)), "strictly increasing knots");
    if (!rises(map.x)) fields.fail("x", shown(Json(map.x)), "strictly increasing knots");
}

int steps_of(const Fields& fields, const std::string& key) {
    if (!is_count(key)) fields.fail(key, shown(key), "numbers of steps, 1 to 999, as keys");
    return std::stoi(key);
}

void read_schedules(Fields fields, Bundle::Diffusion& diffusion) {
    const double low = diffusion.sigma_min, high = diffusion.sigma_max;
    for (const std::string& key : fields.keys()) {
        const int count = steps_of(fields, key);
        const auto sigmas = fields.numbers(key, count, count, low, high);
        const bool falls = std::ranges::adjacent_find(sigmas, std::less_equal<>()) == sigmas.end();
        if (!falls || sigmas.front() != high || (count > 1 && sigmas.back() != low)) {
            fields.fail(key, shown(Json(sigmas)),
                        "falling numbers from sigma_max, " + text_of(high) + ", to sigma_min, " + text_of(low));
        }
        diffusion.schedules[count] = sigmas;
    }
}

void read_diffusion(Fields fields, Bundle& bundle) {
    Bundle::Diffusion& found = bundle.diffusion;
    found.sigma_min = fields.number("sigma_min", 1e-6, 1e6);
    found.sigma_data = fields.number("sigma_data", 1e-3, 1e3);
    found.sigma_max = fields.number("sigma_max", 1e-6, 1e6);
    found.schedule = fields.text("schedule", "a schedule's name", is_choice);
    found.solver = fields.text("solver", "a solver's name", is_choice);
    found.steps = static_cast<int>(fields.integer("steps", 1, 10'000));
    if (found.sigma_max <= found.sigma_min) {
        fields.fail("sigma_max", text_of(found.sigma_max), "more than sigma_min, " + text_of(found.sigma_min));
    }
    if (fields.has("schedules")) read_schedules(fields.section("schedules"), found);
    if (fields.has("deviation_scale")) {
        Fields scales = fields.section("deviation_scale");
        for (const std::string& key : scales.keys()) {
            found.deviation_scale[steps_of(scales, key)] = scales.number(key, 0.01, 100);
        }
    }
    if (fields.has("mirror")) found.mirror = fields.boolean("mirror");
    fields.close();
}

// ---------------------------------------------------------------------------------------------- networks

std::vector<Extent> read_shape(Fields& fields) {
    std::vector<Extent> shape;
    for (const Json& value : fields.list("shape", 1, 8)) {
        const bool size = value.is_number_integer() && value.get<double>() >= 1 && value.get<double>() < 9e18;
        const bool free = value.is_string() && is_free_extent(value.get_ref<const std::string&>());
        if (!size && !free) {
            fields.fail("shape", shown(value), "whole numbers, or names of free extents like \"N\" or \"X/2\"");
        }
        shape.push_back(size ? Extent{value.get<std::int64_t>(), ""} : Extent{0, value.get<std::string>()});
    }
    return shape;
}

std::vector<Tensor> read_tensors(Fields& fields, const std::string& key) {
    std::vector<Tensor> tensors;
    for (Fields& section : fields.sections(key, 1, 32)) {
        Tensor& tensor = tensors.emplace_back();
        tensor.name = section.text("name", "a tensor's name", is_tensor_name);
        tensor.dtype = section.text("dtype", "float32, float16, bfloat16 or int64", is_dtype);
        tensor.shape = read_shape(section);
        section.close();
    }
    return tensors;
}

Graph read_graph(Fields& fields) {
    Graph graph;
    graph.file = fields.text("file", "a plain file name inside the bundle, without '/' or '..'", is_file);
    graph.inputs = read_tensors(fields, "inputs");
    graph.outputs = read_tensors(fields, "outputs");
    return graph;
}

Int8Ranges read_ranges(Fields fields) {
    Int8Ranges ranges;
    for (const std::string& name : fields.keys()) {
        if (!is_node_name(name)) fields.fail(name, shown(Json(name)), "names of the graph's convolutions as keys");
        const auto range = array_of<2>(fields.numbers(name, 2, 2, -1e6, 1e6));
        if (range[0] > 0 || range[1] < 0 || range[0] == range[1]) {
            fields.fail(name, shown(Json(range)), "the least value and the largest, with 0 between them");
        }
        ranges[name] = range;
    }
    if (ranges.empty()) fields.fail("keys", "none", "names of the graph's convolutions");
    return ranges;
}

void read_networks(Fields fields, Bundle& bundle) {
    for (const auto& [name, graph] : {std::pair{"encoder", &bundle.encoder}, std::pair{"lift", &bundle.lift},
                                      std::pair{"denoiser", &bundle.denoiser}}) {
        Fields section = fields.section(name);
        *graph = read_graph(section);
        // An encoder sees the whole image; a lift that came before its radius was told is unknown.
        if (graph == &bundle.denoiser || (graph == &bundle.lift && section.has("receptive_radius"))) {
            graph->receptive_radius = section.integer("receptive_radius", 0, 4096);
        }
        if (graph == &bundle.denoiser && section.has("int8")) graph->int8 = read_ranges(section.section("int8"));
        section.close();
    }
    fields.close();
}

std::string names_of(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

void check_tensors(const Fields& fields, const std::string& where, const std::vector<Tensor>& tensors,
                   const std::vector<std::string>& expected) {
    std::vector<std::string> found;
    found.reserve(tensors.size());
    for (const Tensor& tensor : tensors) found.push_back(tensor.name);
    if (found != expected) fields.fail("networks." + where, names_of(found), names_of(expected));
    for (const Tensor& tensor : tensors) {
        if (tensor.dtype != "float32") {
            fields.fail("networks." + where + "." + tensor.name + ".dtype", tensor.dtype, "float32");
        }
    }
}

// What one graph gives is what the next takes, but for the first axis: the batch, which the denoiser may leave free.
void check_chain(const Fields& fields, const std::vector<Tensor>& given, const std::vector<Tensor>& taken,
                 std::size_t first, const std::string& where) {
    for (std::size_t i = 0; i < std::min(given.size(), taken.size() - first); ++i) {
        const auto &from = given[i].shape, &to = taken[first + i].shape;
        if (!std::equal(from.begin() + 1, from.end(), to.begin() + 1, to.end())) {
            fields.fail("networks." + where + ".inputs." + taken[first + i].name + ".shape",
                        to_string(taken[first + i]), "what comes before gives, " + to_string(given[i]));
        }
    }
}

// The three graphs fit together: condition once, denoise many times.
void check_contract(const Fields& fields, const Bundle& bundle) {
    std::vector<std::string> conditions;
    conditions.reserve(bundle.lift.outputs.size());
    for (std::size_t i = 0; i < bundle.lift.outputs.size(); ++i)
        conditions.push_back(std::string("c").append(std::to_string(i)));
    std::vector<std::string> denoised_from = {"x", "sigma"};
    denoised_from.insert(denoised_from.end(), conditions.begin(), conditions.end());
    check_tensors(fields, "encoder.inputs", bundle.encoder.inputs, {"views", "valid"});
    check_tensors(fields, "encoder.outputs", bundle.encoder.outputs, {"features"});
    check_tensors(fields, "lift.inputs", bundle.lift.inputs, {"features", "P", "coords", "valid"});
    check_tensors(fields, "lift.outputs", bundle.lift.outputs, conditions);
    check_tensors(fields, "denoiser.inputs", bundle.denoiser.inputs, denoised_from);
    check_tensors(fields, "denoiser.outputs", bundle.denoiser.outputs, {"denoised"});
    check_chain(fields, bundle.encoder.outputs, bundle.lift.inputs, 0, "lift");
    check_chain(fields, bundle.lift.outputs, bundle.denoiser.inputs, 2, "denoiser");
    const auto views = static_cast<std::int64_t>(bundle.views.size());
    const std::vector<Extent> wanted = {
        {1, ""}, {views, ""}, {1, ""}, {bundle.xray.rows, ""}, {bundle.xray.columns, ""}};
    if (bundle.encoder.inputs[0].shape != wanted) {
        fields.fail("networks.encoder.inputs.views.shape", to_string(bundle.encoder.inputs[0]),
                    to_string(Tensor{"views", "float32", wanted}) + ", from geometry and xray");
    }
}

bool is_numeric(const Json& value) {
    return value.is_number() || (value.is_array() && std::ranges::all_of(value, is_numeric));
}

// Arrays of numbers under free names, for whoever judges X-rays by them.
void check_statistics(Fields& whole) {
    Fields fields = whole.section("xray_statistics");
    for (const std::string& name : fields.keys()) {
        const Json& value = fields.raw(name, "an array of numbers");
        if (!value.is_array() || !is_numeric(value)) fields.fail(name, shown(value), "an array of numbers");
    }
    const std::size_t size = whole.raw("xray_statistics", "an object").dump().size();
    if (size > kMostStatisticsBytes) {
        whole.fail("xray_statistics", std::to_string(size) + " bytes",
                   "at most " + std::to_string(kMostStatisticsBytes) + " bytes");
    }
}

void read_files(Fields fields, Fields& whole, Bundle& bundle) {
    for (const std::string& name : fields.keys()) {
        Fields entry = fields.section(name);
        const bool plain = !name.empty() && name.find('/') == std::string::npos && name[0] != '.' &&
                           name.find('\0') == std::string::npos && name != "model.json";
        if (!plain) whole.fail("files", shown(name), "plain file names inside the bundle, without '/' or '..'");
        bundle.files[name] = {entry.text("sha256", "64 hexadecimal digits", is_digest),
                              entry.integer("bytes", 1, kMostFileBytes)};
        entry.close();
    }
    for (const auto& [name, graph] : {std::pair{"encoder", &bundle.encoder}, std::pair{"lift", &bundle.lift},
                                      std::pair{"denoiser", &bundle.denoiser}}) {
        if (!bundle.files.contains(graph->file)) {
            whole.fail("networks." + std::string(name) + ".file", graph->file,
                       "a file listed in files (" + names_of(fields.keys()) + ")");
        }
    }
}

}  // namespace

std::string to_string(const Tensor& tensor) {
    std::string text = tensor.name + " " + tensor.dtype + " [";
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
        const Extent& extent = tensor.shape[i];
        text += (i ? ", " : "") + (extent.free.empty() ? std::to_string(extent.size) : extent.free);
    }
    return text + "]";
}

OpenedBundle read_manifest(const std::string& source, std::string_view text) {
    Json content = parse_json(source, text);
    Fields fields(source, content);
    const Json& schema = fields.raw("schema", std::to_string(kBundleSchema));
    if (!schema.is_number() || schema.get<double>() != kBundleSchema) {
        fields.fail("schema", shown(schema), std::to_string(kBundleSchema),
                    "written by another version of x2ct; update x2ct or export the model again");
    }
    Bundle bundle;
    read_xray(fields.section("xray"), bundle);
    read_geometry(fields.section("geometry"), fields, bundle);
    read_patch(fields.section("patch"), bundle);
    read_grid(fields.section("grid"), bundle);
    for (std::size_t i = 0; i < bundle.patch.sizes.size(); ++i) {
        for (int axis = 0; axis < 3; ++axis) {
            if (bundle.patch.sizes[i][axis] > bundle.grid.shape[axis]) {
                fields.fail("patch.sizes[" + std::to_string(i) + "]", shown(Json(bundle.patch.sizes[i])),
                            "at most the grid's " + shown(Json(bundle.grid.shape)));
            }
        }
    }
    read_networks(fields.section("networks"), bundle);
    check_contract(fields, bundle);
    bundle.name = fields.text("name", "letters, digits, '.', '_' and '-', at most 64", is_name);
    bundle.version = fields.text("x2ct", "a version");
    bundle.created = fields.text("created", "a date and time");
    read_intensity(fields.section("intensity"), bundle);
    read_diffusion(fields.section("diffusion"), bundle);
    fields.section("parity");
    fields.section("provenance");
    if (fields.has("xray_statistics")) check_statistics(fields);
    read_files(fields.section("files"), fields, bundle);
    fields.close();
    content["geometry"] = json_of(bundle.views);
    content["diffusion"].emplace("schedules", Json::object());
    content["diffusion"].emplace("deviation_scale", Json::object());
    content["diffusion"].emplace("mirror", false);
    for (const char* name : {"encoder", "lift", "denoiser"}) {
        content["networks"][name].emplace("receptive_radius", nullptr);
        content["networks"][name].emplace("int8", Json::object());
    }
    content.emplace("xray_statistics", Json::object());
    return {std::move(bundle), content.dump()};
}

}  // namespace x2ct
