#include "tensorrt.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "x2ct/error.h"

namespace x2ct::tensorrt {
namespace {

namespace fs = std::filesystem;
using Profile = nvinfer1::OptProfileSelector;

// Tells how far the build is, and whether it is to go on. TensorRT calls it from its own threads, which nothing may be
// thrown into.
class Monitor : public nvinfer1::IProgressMonitor {
  public:
    explicit Monitor(const PlanOptions& options) : progress_(options.progress) {}

    void phaseStart(const char* phase, const char*, std::int32_t steps) noexcept override {
        const std::lock_guard lock(mutex_);
        steps_[phase] = steps;
        tell(phase, 0);
    }

    bool stepComplete(const char* phase, std::int32_t step) noexcept override {
        const std::lock_guard lock(mutex_);
        tell(phase, step + 1);
        return !is_cancelled_;
    }

    void phaseFinish(const char* phase) noexcept override {
        const std::lock_guard lock(mutex_);
        steps_.erase(phase);
    }

    /// Throws what the callback threw, or Cancelled if it said so.
    void rethrow() {
        const std::lock_guard lock(mutex_);
        if (thrown_) std::rethrow_exception(thrown_);
        if (is_cancelled_) throw Cancelled("cancelled");
    }

  private:
    void tell(const char* phase, int step) noexcept {
        if (!progress_ || is_cancelled_) return;
        try {
            is_cancelled_ = !progress_(phase, step, steps_[phase]);
        } catch (...) {
            thrown_ = std::current_exception();
            is_cancelled_ = true;
        }
    }

    const std::function<bool(const std::string&, int, int)>& progress_;
    std::mutex mutex_;
    std::map<std::string, int> steps_;
    std::exception_ptr thrown_;
    bool is_cancelled_ = false;
};

nvinfer1::NetworkDefinitionCreationFlags strongly_typed() {
#if NV_TENSORRT_MAJOR >= 11
    return 0;  // there is no other kind any more
#else
    return 1U << static_cast<std::uint32_t>(nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#endif
}

void parse(nvonnxparser::IParser& parser, const std::string& path) {
    std::error_code ignored;
    if (!fs::is_regular_file(path, ignored)) {
        throw InputError(path + ": file: found none, expected an ONNX network");
    }
    if (parser.parseFromFile(path.c_str(), static_cast<int>(nvinfer1::ILogger::Severity::kERROR))) return;
    std::string line = path + ": file: found something that TensorRT " + version() + " can't read";
    if (parser.getNbErrors() > 0) {
        const nvonnxparser::IParserError& error = *parser.getError(0);
        const std::string node = error.nodeOperator() == nullptr ? "" : error.nodeOperator();
        if (!node.empty()) line += " at " + node + " (" + error.nodeName() + ")";
        line += std::string(": ") + one_line(error.desc() == nullptr ? "" : error.desc());
    }
    throw InputError(line + "; expected an ONNX network");
}

const nvinfer1::ITensor& input_of(const nvinfer1::INetworkDefinition& network, const PlanOptions& options,
                                  const std::string& name) {
    for (std::int32_t i = 0; i < network.getNbInputs(); ++i) {
        if (network.getInput(i)->getName() == name) return *network.getInput(i);
    }
    throw InputError(options.path + ": profile: found " + name + ", expected names of its inputs");
}

// A free axis (-1) takes what lies in the range; another must be what the file says.
void check_range(const std::string& where, const Shape& declared, const ShapeRange& range) {
    bool fits = range.least.size() == declared.size() && is_within(range.usual, range.least, range.largest);
    for (std::size_t axis = 0; fits && axis < declared.size(); ++axis) {
        fits = range.least[axis] >= 1 &&
               (declared[axis] < 0 || (range.least[axis] == declared[axis] && range.largest[axis] == declared[axis]));
    }
    if (fits) return;
    throw InputError(where + ": found " + range_text(range.least, range.largest) + " with " + to_string(range.usual) +
                     " within, expected sizes that go with " + to_string(declared));
}

void add_profile(nvinfer1::IBuilder& builder, nvinfer1::IBuilderConfig& config,
                 const nvinfer1::INetworkDefinition& network, const PlanOptions& options) {
    nvinfer1::IOptimizationProfile* const profile = builder.createOptimizationProfile();  // the builder's own
    if (profile == nullptr) throw Error("tensorrt: making a profile: it failed without saying why");
    for (const auto& [name, range] : options.profile) {
        const std::string where = options.path + ": profile: " + name;
        check_range(where, shape_of(input_of(network, options, name).getDimensions()), range);
        const bool taken = profile->setDimensions(name.c_str(), Profile::kMIN, dims_of(range.least, where)) &&
                           profile->setDimensions(name.c_str(), Profile::kOPT, dims_of(range.usual, where)) &&
                           profile->setDimensions(name.c_str(), Profile::kMAX, dims_of(range.largest, where));
        if (!taken) throw InputError(where + ": found shapes that TensorRT doesn't take");
    }
    if (static_cast<std::size_t>(network.getNbInputs()) != options.profile.size()) {
        throw InputError(options.path + ": profile: found " + std::to_string(options.profile.size()) +
                         " inputs, expected all " + std::to_string(network.getNbInputs()));
    }
    if (!profile->isValid() || config.addOptimizationProfile(profile) < 0) {
        throw InputError(options.path + ": profile: found shapes that don't go together");
    }
}

// Kernels' timings from earlier builds: a build of a like network takes seconds in place of minutes.
std::unique_ptr<nvinfer1::ITimingCache> timing_cache(nvinfer1::IBuilderConfig& config, const std::string& path) {
    if (path.empty()) return nullptr;
    const std::vector<char> known = read_file(path).value_or(std::vector<char>());
    std::unique_ptr<nvinfer1::ITimingCache> cache(config.createTimingCache(known.data(), known.size()));
    if (!cache) cache.reset(config.createTimingCache(nullptr, 0));  // of another release: begun anew
    if (cache && !config.setTimingCache(*cache, false)) {
        cache.reset(config.createTimingCache(nullptr, 0));
        if (cache) config.setTimingCache(*cache, false);
    }
    return cache;
}

// Beside and renamed: another process may read it now.
void keep(const nvinfer1::ITimingCache& cache, const std::string& path) {
    const std::unique_ptr<nvinfer1::IHostMemory> content(cache.serialize());
    if (!content) return;
    const std::string beside = path + "." + std::to_string(reinterpret_cast<std::uintptr_t>(&cache)) + ".part";
    write_file(beside, content->data(), content->size());
    fs::rename(beside, path);
}

void configure(nvinfer1::IBuilderConfig& config, const PlanOptions& options) {
    if (options.workspace_bytes < 0 || options.effort < 0 || options.effort > 5) {
        throw InputError("plan: workspace and effort: found " + std::to_string(options.workspace_bytes) +
                         " bytes and " + std::to_string(options.effort) + ", expected 0 bytes or more, and 0 to 5");
    }
    if (options.workspace_bytes > 0) {
        config.setMemoryPoolLimit(nvinfer1::MemoryPoolType::kWORKSPACE,
                                  static_cast<std::size_t>(options.workspace_bytes));
    }
    config.setBuilderOptimizationLevel(options.effort);
    config.setMaxAuxStreams(0);  // one stream a sampler
    // All other types stand in the graph. Matrix units take float32 as TF32 only where it is asked for: what a bf16
    // graph leaves in float32 is the preconditioning, which means it.
    if (options.precision == "tf32") {
        config.setFlag(nvinfer1::BuilderFlag::kTF32);
    } else {
        config.clearFlag(nvinfer1::BuilderFlag::kTF32);
    }
}

}  // namespace

void build_plan(const PlanOptions& options) {
    if (!options.timing_cache.empty() && !fs::is_directory(fs::path(options.timing_cache).parent_path())) {
        throw InputError(options.timing_cache + ": timing cache: found no such folder, expected one that is there");
    }
    const OnDevice current(device_index(options.device));
    Errors errors;
    Monitor monitor(options);
    const auto builder = make_builder(errors);
    const std::unique_ptr<nvinfer1::INetworkDefinition> network(builder->createNetworkV2(strongly_typed()));
    if (!network) errors.raise("making a network");
    network->setErrorRecorder(&errors);
    const auto parser = make_parser(*network);
    parse(*parser, options.path);
    network->setName(name_for(options.precision).c_str());
    const std::unique_ptr<nvinfer1::IBuilderConfig> config(builder->createBuilderConfig());
    if (!config) errors.raise("configuring");
    configure(*config, options);
    add_profile(*builder, *config, *network, options);
    const auto cache = timing_cache(*config, options.timing_cache);
    config->setProgressMonitor(&monitor);
    const std::unique_ptr<nvinfer1::IHostMemory> plan(builder->buildSerializedNetwork(*network, *config));
    monitor.rethrow();
    if (!plan || plan->size() == 0) errors.raise("building a plan of " + options.path);
    write_file(options.output, plan->data(), plan->size());
    if (cache) keep(*cache, options.timing_cache);
}

}  // namespace x2ct::tensorrt
