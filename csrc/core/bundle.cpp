#include "x2ct/bundle.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "core/fields.h"
#include "core/manifest.h"
#include "core/onnxfile.h"
#include "core/parallel.h"
#include "core/sha256.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr const char* kManifest = "model.json";
constexpr std::int64_t kMostManifestBytes = 4 << 20;
constexpr std::uint64_t kOpset = 18;

// An open file or folder, closed when it goes.
class Descriptor {
  public:
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (number_ >= 0) ::close(number_);
    }
    int number() const { return number_; }
    bool is_open() const { return number_ >= 0; }

  private:
    int number_;
};

std::string reason(int code) { return std::strerror(code); }

// A bundle's folder: its files are opened relative to it, so that nothing outside of it can be.
class Folder {
  public:
    explicit Folder(const std::string& path)
        : path_(path), folder_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
        if (!folder_.is_open()) {
            const std::string found = errno == ENOENT ? "nothing there" : errno == ENOTDIR ? "a file" : reason(errno);
            refuse(path, "bundle", found, std::string("a folder NAME.x2ct with ") + kManifest);
        }
    }

    std::string path_of(const std::string& name) const { return path_ + "/" + name; }

    // A regular file's bytes; `size` is what it must have, none where any size up to `limit` will do.
    std::string read(const std::string& name, std::optional<std::int64_t> size, std::int64_t limit) const {
        const std::string path = path_of(name);
        // A link is not followed and a pipe not waited for.
        const Descriptor file(::openat(folder_.number(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
        if (!file.is_open()) {
            const std::string found = errno == ENOENT  ? "nothing there"
                                      : errno == ELOOP ? "a symbolic link"
                                      : errno == ENXIO ? "not a regular file"
                                                       : reason(errno);
            refuse(path, "file", found, "a regular file inside the bundle");
        }
        struct stat facts{};
        if (::fstat(file.number(), &facts) != 0) refuse(path, "file", reason(errno), "a file that can be read");
        if (!S_ISREG(facts.st_mode)) refuse(path, "file", "not a regular file", "a regular file inside the bundle");
        const std::string expected =
            size ? std::to_string(*size) + " bytes" : "at most " + std::to_string(limit) + " bytes";
        if (facts.st_size > limit || (size && facts.st_size != *size)) {
            refuse(path, "size", std::to_string(facts.st_size) + " bytes", expected, "copy the bundle again");
        }
        std::string data(static_cast<std::size_t>(facts.st_size), '\0');
        std::size_t at = 0;
        while (at < data.size()) {
            const ssize_t got = ::read(file.number(), data.data() + at, data.size() - at);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) refuse(path, "file", reason(errno), "a file that can be read");
            if (got == 0) refuse(path, "size", "a file that changes", expected);
            at += static_cast<std::size_t>(got);
        }
        return data;
    }

  private:
    std::string path_;
    Descriptor folder_;
};

std::string list(const std::vector<Tensor>& tensors) {
    std::string text;
    for (const Tensor& tensor : tensors) text += (text.empty() ? "" : "; ") + to_string(tensor);
    return text;
}

void check_graph(const std::string& path, std::string_view data, const Graph& graph) {
    const GraphFacts facts = read_graph(path, data);
    if (facts.opset != kOpset) refuse(path, "opset", std::to_string(facts.opset), std::to_string(kOpset));
    if (facts.inputs != graph.inputs) {
        refuse(path, "inputs", list(facts.inputs), list(graph.inputs) + ", as model.json says");
    }
    if (facts.outputs != graph.outputs) {
        refuse(path, "outputs", list(facts.outputs), list(graph.outputs) + ", as model.json says");
    }
}

Bundle manifest_of(const Folder& folder, const std::string& path) {
    const std::string text = folder.read(kManifest, std::nullopt, kMostManifestBytes);
    Bundle bundle = read_manifest(folder.path_of(kManifest), text);
    bundle.path = path;
    bundle.checksum = sha256(text);
    return bundle;
}

}  // namespace

void Intensity::to_hu(float* values, std::int64_t count, int threads) const {
    constexpr std::int64_t kGrain = 1 << 15;
    std::vector<double> slopes(x.size() - 1);
    for (std::size_t k = 0; k < slopes.size(); ++k) slopes[k] = (hu[k + 1] - hu[k]) / (x[k + 1] - x[k]);
    const auto hu_of = [&](float given) {
        const double value = given;
        if (!(value > x.front())) return value <= x.front() ? static_cast<float>(hu.front()) : given;  // NaN stays
        if (value >= x.back()) return static_cast<float>(hu.back());
        std::size_t k = 0;
        while (value >= x[k + 1]) ++k;
        return static_cast<float>(slopes[k] * (value - x[k]) + hu[k]);
    };
    parallel_for(count, kGrain, 1, threads, [&](std::int64_t begin, std::int64_t end) {
        std::transform(values + begin, values + end, values + begin, hu_of);
    });
}

Bundle open_bundle(const std::string& path) {
    const Folder folder(path);
    Bundle bundle = manifest_of(folder, path);
    for (const auto& [name, file] : bundle.files) {
        const std::string data = folder.read(name, file.bytes, kMostFileBytes);
        const std::string digest = sha256(data);
        if (digest != file.sha256) {
            refuse(folder.path_of(name), "SHA-256", digest.substr(0, 12) + "...", file.sha256.substr(0, 12) + "...",
                   "the file is damaged; copy it again");
        }
        for (const Graph* graph : {&bundle.encoder, &bundle.lift, &bundle.denoiser}) {
            if (graph->file == name) check_graph(folder.path_of(name), data, *graph);
        }
    }
    return bundle;
}

Bundle reopen_bundle(const std::string& path, const std::string& checksum) {
    const Folder folder(path);
    Bundle bundle = manifest_of(folder, path);
    if (bundle.checksum != checksum) {
        refuse(folder.path_of(kManifest), "SHA-256", bundle.checksum.substr(0, 12) + "...",
               checksum.substr(0, 12) + "...", "the bundle has changed since it was opened; open it again");
    }
    return bundle;
}

}  // namespace x2ct
