#include "model.h"

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/api/module.h>
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

// Frozen: weights are constants of the graph, in its blocks too.
std::string weights_of(const ::torch::jit::Block& block) {
    std::string found;
    for (const ::torch::jit::Node* node : block.nodes()) {
        if (node->kind() == c10::prim::Constant && node->hasAttribute(c10::attr::value) &&
            node->kindOf(c10::attr::value) == ::torch::jit::AttributeKind::t) {
            const at::Tensor& constant = node->t(c10::attr::value);
            if (constant.dim() > 1) found = name_of(constant.scalar_type());
        }
        for (const ::torch::jit::Block* inner : node->blocks()) {
            const std::string told = weights_of(*inner);
            if (!told.empty()) found = told;
        }
        if (!found.empty()) return found;
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
        const c10::IValue found = module_.forward({inputs.begin(), inputs.end()});
        std::vector<at::Tensor> outputs;
        for (const c10::IValue& one : found.toTupleRef().elements()) outputs.push_back(one.toTensor());
        return outputs;
    }

    std::string description() const override { return description_; }

    std::string weights() const override {
        for (const at::Tensor& one : module_.buffers()) {
            if (one.dim() > 1) return name_of(one.scalar_type());
        }
        return weights_of(*module_.get_method("forward").graph()->block());
    }

  private:
    mutable ::torch::jit::Module module_;
    std::string description_;
};

class Package : public Model {
  public:
    Package(const std::string& path, const Place& place)
        : loader_(path, "model", false, 1, static_cast<c10::DeviceIndex>(place.is_cpu() ? -1 : place.index)) {}

    std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, void* stream) override {
        return loader_.run(inputs, stream);
    }

    std::string description() const override {
        const auto metadata = loader_.get_metadata();
        const auto found = metadata.find(kPackageKey);
        return found == metadata.end() ? "" : found->second;
    }

    std::string weights() const override {
        for (const auto& [name, type] : loader_.get_runner()->getConstantNamesToDtypes()) {
            const std::string told = name_of(static_cast<c10::ScalarType>(type));
            if (!told.empty()) return told;
        }
        return "";
    }

  private:
    mutable ::torch::inductor::AOTIModelPackageLoader loader_;
};

}  // namespace

std::unique_ptr<Model> load_model(const std::string& path, const Place& place) {
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
        if (kind == ".pt") return std::make_unique<Script>(path, place);
        return std::make_unique<Package>(path, place);
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) {
        throw InputError(path + ": file: found something unreadable, expected " +
                         (kind == ".pt" ? "TorchScript; " : "an AOTInductor package; ") + Failures::text_of(error));
    }
}

}  // namespace x2ct::torch
