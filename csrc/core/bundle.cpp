#include "x2ct/bundle.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "core/bundle_files.h"
#include "core/fields.h"
#include "core/manifest.h"
#include "core/parallel.h"
#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr const char* kManifest = "model.json";

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

OpenedBundle manifest_of(const Folder& folder, const std::string& path) {
    const std::string text = folder.read(kManifest, std::nullopt, kMostManifestBytes);
    OpenedBundle opened = read_manifest(folder.path_of(kManifest), text);
    opened.bundle.path = path;
    opened.bundle.checksum = sha256(text);
    return opened;
}

constexpr std::int64_t kBlock = 1 << 10;  // values whose doubles stay in the first cache

// Every piece is worked out for every value, and the last one that begins at or below it is kept: no branch.
X2CT_MULTIVERSION void interpolate(const Intensity& map, const std::vector<double>& slopes, const float* values,
                                   float* to, std::int64_t count) {
    std::array<double, kBlock> found;
    std::array<float, kBlock> result;  // `to` may be `values`
    const double least = map.hu.front(), end = map.x.back();
    const auto most = static_cast<float>(map.hu.back());
    for (std::size_t k = 0; k < slopes.size(); ++k) {
        const double from = map.x[k], slope = slopes[k], at = map.hu[k];
        for (std::int64_t i = 0; i < count; ++i) {
            const double value = values[i];
            const double here = slope * (value - from) + at;
            found[i] = value >= from ? here : (k == 0 ? least : found[i]);
        }
    }
    for (std::int64_t i = 0; i < count; ++i) {
        const float value = values[i];
        const float inside = value == value ? static_cast<float>(found[i]) : value;  // NaN stays
        result[i] = value >= end ? most : inside;
    }
    std::copy_n(result.begin(), count, to);
}

}  // namespace

void Intensity::to_hu(const float* given, float* to, std::int64_t count, int threads) const {
    constexpr std::int64_t kGrain = 32 * kBlock;  // what is worth a thread
    std::vector<double> slopes(x.size() - 1);
    for (std::size_t k = 0; k < slopes.size(); ++k) slopes[k] = (hu[k + 1] - hu[k]) / (x[k + 1] - x[k]);
    parallel_for(count, kGrain, 1, threads, [&](std::int64_t begin, std::int64_t end) {
        for (; begin < end; begin += kBlock) {
            interpolate(*this, slopes, given + begin, to + begin, std::min(kBlock, end - begin));
        }
    });
}

Bundle open_bundle(const std::string& path) { return open_bundle_with_manifest(path).bundle; }

OpenedBundle open_bundle_with_manifest(const std::string& path) {
    const Folder folder(path);
    OpenedBundle opened = manifest_of(folder, path);
    const Bundle& bundle = opened.bundle;
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
    return opened;
}

Bundle reopen_bundle(const std::string& path, const std::string& checksum) {
    const Folder folder(path);
    Bundle bundle = manifest_of(folder, path).bundle;
    if (bundle.checksum != checksum) {
        refuse(folder.path_of(kManifest), "SHA-256", bundle.checksum.substr(0, 12) + "...",
               checksum.substr(0, 12) + "...", "the bundle has changed since it was opened; open it again");
    }
    return bundle;
}

}  // namespace x2ct
