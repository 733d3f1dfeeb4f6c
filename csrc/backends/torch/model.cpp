#include "model.h"

#include <ATen/Context.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include <filesystem>

#include "failure.h"
#include "runtime.h"

namespace x2ct::torch {
namespace {

constexpr const char* kScriptKey = "x2ct.json";  // a file inside a TorchScript file
constexpr const char* kPackageKey = "x2ct";      // of a package's metadata

std::string name_of(c10::ScalarType type) {
    switch (type) {
        case c10::kFloat:
            return "f32";
        case c10::kHalf:
            return "f16";
        case c10::kBFloat16:
            return "bf16";
        default:
            return "";
    }
}

// Where two types were found: the narrower, for a typed graph keeps its scalars' layers in f32.
std::string narrower(const std::string& one, const std::string& other) {
    return one.empty() || one == "f32" ? (other.empty() ? one : other) : one;
}

// Frozen: weights are constants of the graph, in its blocks too.
std::string weights_of(const ::torch::jit::Block& block) {
    std::string found;
    for (const ::torch::jit::Node* node : block.nodes()) {
        if (node->kind() == c10::prim::Constant && node->hasAttribute(c10::attr::value) &&
            node->kindOf(c10::attr::value) == ::torch::jit::AttributeKind::t) {
            const at::Tensor& constant = node->t(c10::attr::value);
            if (constant.dim() > 1) found = narrower(found, name_of(constant.scalar_type()));
        }
        for (const ::torch::jit::Block* inner : node->blocks()) found = narrower(found, weights_of(*inner));
    }
    return found;
}

class Script : public Model {
  public:
    Script(const std::string& path, const Place& place) {
        ::torch::jit::ExtraFilesMap extra = {{kScriptKey, ""}};
        module_ = ::torch::jit::load(path, device_of(place), extra);
        module_.eval();
        description_ = extra[kScriptKey];
    }

    std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, void*) override {
        // As it was frozen: otherwise the first calls are watched, and the graph is compiled anew from what they
        // showed.
        const ::torch::jit::GraphOptimizerEnabledGuard as_it_is(false);
        const c10::IValue found = module_.forward({inputs.begin(), inputs.end()});
        std::vector<at::Tensor> outputs;
        for (const c10::IValue& one : found.toTupleRef().elements()) outputs.push_back(one.toTensor());
        return outputs;
    }

    std::string description() const override { return description_; }

    std::string weights() const override {
        std::string found = weights_of(*module_.get_method("forward").graph()->block());
        for (const at::Tensor& one : module_.buffers()) {
            if (one.dim() > 1) found = narrower(found, name_of(one.scalar_type()));
        }
        return found;
    }

  private:
    mutable ::torch::jit::Module module_;
    std::string description_;
};

class Package : public Model {
  public:
    Package(const std::string& path, const Place& place, bool one_stream)
        : loader_(path, "model", one_stream, 1, static_cast<c10::DeviceIndex>(place.is_cpu() ? -1 : place.index)) {}

    std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, void* stream) override {
        return loader_.run(inputs, stream);
    }

    std::string description() const override {
        const auto metadata = loader_.get_metadata();
        const auto found = metadata.find(kPackageKey);
        return found == metadata.end() ? "" : found->second;
    }

    std::string weights() const override {
        std::string found;
        for (const auto& [name, type] : loader_.get_runner()->getConstantNamesToDtypes()) {
            found = narrower(found, name_of(static_cast<c10::ScalarType>(type)));
        }
        return found;
    }

  private:
    mutable ::torch::inductor::AOTIModelPackageLoader loader_;
};

}  // namespace

std::unique_ptr<Model> load_model(const std::string& path, const Place& place, bool one_stream) {
    const std::string kind = std::filesystem::path(path).extension().string();
    if (kind != ".pt" && kind != ".pt2") {
        throw InputError(path + ": file: found " + (kind.empty() ? "no suffix" : kind) +
                         ", expected .pt (TorchScript) or .pt2 (AOTInductor); make one: x2ct export BUNDLE --format "
                         "torchscript");
    }
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) {
        throw InputError(path + ": file: found none, expected an artefact that x2ct export made");
    }
    try {
        if (!place.is_cpu()) at::globalContext().lazyInitDevice(c10::kCUDA);
        if (kind == ".pt") return std::make_unique<Script>(path, place);
        return std::make_unique<Package>(path, place, one_stream);
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) {
        throw InputError(path + ": file: found something unreadable, expected " +
                         (kind == ".pt" ? "TorchScript; " : "an AOTInductor package; ") + Failures::text_of(error));
    }
}

}  // namespace x2ct::torch
