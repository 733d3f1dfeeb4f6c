// The bundle reader: what is good is taken as it stands, what is wrong is named, and nothing outside is read.
#include <sys/stat.h>

#include <algorithm>

#include "check.h"
#include "core/manifest.h"
#include "core/onnxfile.h"
#include "core/sha256.h"
#include "tiny.h"
#include "x2ct/bundle.h"
#include "x2ct/error.h"

namespace {

// What reading says against it; "" if nothing.
std::string complaint(const std::string& folder) {
    try {
        x2ct::open_bundle(folder);
        return "";
    } catch (const x2ct::InputError& error) {
        return error.what();
    }
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string replaced(std::string text, const std::string& old, const std::string& by) {
    const auto at = text.find(old);
    CHECK(at != std::string::npos);
    return text.replace(at, old.size(), by);
}

void digests_are_those_of_the_standard() {
    CHECK(x2ct::sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(x2ct::sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(x2ct::sha256(std::string(1'000'000, 'a')) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    for (const std::size_t size : {55, 56, 63, 64, 65, 119, 120})
        CHECK(x2ct::sha256(std::string(size, 'b')).size() == 64);
}

void a_good_bundle_is_read_as_it_stands() {
    const tiny::Folder folder;
    tiny::write(folder);
    const x2ct::Bundle bundle = x2ct::open_bundle(folder.path());
    CHECK(bundle.name == "tiny" && bundle.checksum == x2ct::sha256(tiny::model_json()));
    CHECK((bundle.grid.shape == std::array<std::int64_t, 3>{16, 16, 16}));
    CHECK(bundle.diffusion.sigma_max == 10 && bundle.diffusion.steps == 4);
    CHECK((bundle.diffusion.schedules.at(3) == std::vector<double>{10, 1, 0.05}));
    CHECK(bundle.views.size() == 2 && bundle.views[0].name == "ap" && bundle.views[1].rows == tiny::kDetector);
    CHECK((bundle.views[0].matrix == std::array<double, 12>{-0.125, 0, 0, 11.5, 0, 0, -0.125, 11.5, 0, 0, 0, 1}));
    CHECK(bundle.denoiser.receptive_radius == 0 && bundle.lift.receptive_radius == 0);
    CHECK(to_string(bundle.denoiser.inputs[0]) == "x float32 [N, 1, X, Y, Z]");
    CHECK(bundle.file_of(bundle.lift) == folder.path() + "/lift.onnx");
}

void a_wrong_field_is_named() {
    const tiny::Folder folder;
    const std::vector<std::array<std::string, 3>> faults = {
        {R"("schema": 1, "name")", R"("schema": 2, "name")", "schema: found 2, expected 1"},
        {R"("name": "tiny")", R"("name": "../tiny")", "name"},
        {R"("created": ")", R"("created": "a\nb)", "created"},
        {"[16, 16, 16], \"spacing", "[16, 16, 20], \"spacing", "grid.shape"},
        {"[16, 16, 16], \"spacing", "[16, 16, 16.0], \"spacing", "grid.shape"},
        {"[16, 16, 16], \"spacing", "[16, 16, 99999999999999999999], \"spacing", "grid.shape"},
        {R"("hu": [-1000, 0, 1500])", R"("hu": [-1000, 2000, 1500])", "intensity.hu"},
        {R"("hu": [-1000, 0, 1500])", R"("hu": [-1000, 1500])", "intensity"},
        {R"("beam": "parallel")", R"("beam": "fan")", "geometry.views[0].beam"},
        {R"("beam": "parallel")", R"("beam": "cone", "sod_mm": 1500)", "geometry.views[0].sdd_mm"},
        {"[0, -0.125, 0, 11.5]", "[0, 0, 0.5, 11.5]", "geometry.views[1]"},
        {R"("sigma_max": 10)", R"("sigma_max": 0.01)", "diffusion.sigma_max"},
        {R"({"3": [10, 1, 0.05]})", R"({"3": [10, 0.05, 0.05]})", "diffusion.schedules.3"},
        {R"({"3": [10, 1, 0.05]})", R"({"03": [10, 1, 0.05]})", "diffusion.schedules"},
        {R"("probabilities": [1])", R"("probabilities": [0.5])", "patch.probabilities"},
        {R"("lift.onnx", "inputs")", R"("../lift.onnx", "inputs")", "networks.lift.file"},
        {R"("lift.onnx", "inputs")", R"("elsewhere.onnx", "inputs")", "networks.lift.file"},
        {R"("name": "features")", R"("name": "F")", "features"},
        {R"("parity": {})", R"("parity": [])", "parity"},
        {R"("parity": {})", R"("parity": {}, "parity": {})", "twice"},
        {R"("parity": {})", R"("parity": {}, "extra": 1)", "extra"},
        {R"("files": {)", R"("files": {"..": {"sha256": "", "bytes": 1}, )", "files"},
        {R"("parity": {})", R"("parity": {"a": NaN})", "line 1"},
        {R"("parity": {})", R"("parity": {"a": 1e999})", "no float"},
    };
    for (const auto& [old, by, named] : faults) {
        tiny::write(folder, replaced(tiny::model_json(), old, by));
        const std::string found = complaint(folder.path());
        if (!contains(found, named)) std::fprintf(stderr, "%s: said: %s\n", by.c_str(), found.c_str());
        CHECK(contains(found, named) && contains(found, "model.json") && !contains(found, "\n"));
    }
}

void what_nests_too_deep_is_refused() {
    const tiny::Folder folder;
    tiny::write(folder, std::string(100'000, '['));
    CHECK(contains(complaint(folder.path()), "too deep"));
}

void a_damaged_file_is_named() {
    const tiny::Folder folder;
    tiny::write(folder);
    std::string content = tiny::graphs().at("lift.onnx");
    content[content.size() / 2] ^= 1;
    folder.write("lift.onnx", content);
    CHECK(contains(complaint(folder.path()), "lift.onnx: SHA-256"));
    folder.write("lift.onnx", content + "x");
    CHECK(contains(complaint(folder.path()), "lift.onnx: size"));
}

void only_regular_files_of_the_folder_are_read() {
    const tiny::Folder folder, other;
    tiny::write(other);
    namespace fs = std::filesystem;
    for (const char* name : {"model.json", "denoiser.onnx"}) {
        tiny::write(folder);
        const std::string path = folder.path() + "/" + name;
        fs::remove(path);
        CHECK(contains(complaint(folder.path()), std::string(name) + ": file: found nothing there"));
        fs::create_symlink(other.path() + "/" + name, path);
        CHECK(contains(complaint(folder.path()), "a symbolic link"));
        fs::remove(path);
        CHECK(::mkfifo(path.c_str(), 0600) == 0);
        CHECK(contains(complaint(folder.path()), "not a regular file"));
        fs::remove(path);
        fs::create_directory(path);
        CHECK(contains(complaint(folder.path()), "not a regular file"));
        fs::remove(path);
    }
    CHECK(contains(complaint(folder.path() + "/absent"), "nothing there"));
    CHECK(contains(complaint(other.path() + "/model.json"), "a file"));
}

void a_graph_that_reaches_out_is_refused() {
    using tiny::bytes, tiny::number;
    const auto said = [](const std::string& model) {
        try {
            x2ct::read_graph("graph.onnx", model);
            return std::string();
        } catch (const x2ct::InputError& error) {
            return std::string(error.what());
        }
    };
    const std::string good = tiny::graphs().at("lift.onnx"), tensor = number(14, 1);
    CHECK(said(good).empty());
    CHECK(contains(said(bytes(7, bytes(5, tensor))), "external data"));
    CHECK(contains(said(bytes(7, bytes(5, bytes(13, "key")))), "external data"));
    CHECK(contains(said(bytes(7, bytes(1, bytes(5, bytes(5, tensor))))), "external data"));
    CHECK(contains(said(bytes(7, bytes(1, bytes(5, bytes(6, bytes(5, tensor)))))), "external data"));
    CHECK(contains(said(bytes(7, bytes(15, bytes(1, tensor)))), "external data"));
    CHECK(contains(said(bytes(7, bytes(1, bytes(7, "com.example")))), "com.example"));
    CHECK(contains(said(good + bytes(25, "")), "functions"));
    CHECK(contains(said(good + bytes(20, "")), "training"));
    CHECK(contains(said(""), "no graph"));
    std::string deep;
    for (int i = 0; i < 20; ++i) deep = bytes(1, bytes(5, bytes(6, deep)));
    CHECK(contains(said(bytes(7, deep)), "too deep"));
    for (std::size_t cut = 1; cut < good.size(); ++cut) said(good.substr(0, cut));  // an answer, whatever it is
}

void hu_are_those_of_the_knots() {
    const x2ct::Intensity map{{-1000, 0, 1500}, {-1, 0, 1}};
    std::vector<float> values = {-2, -1, -0.5, 0, 0.5, 1, 2};
    map.to_hu(values.data(), values.data(), static_cast<std::int64_t>(values.size()));
    CHECK((values == std::vector<float>{-1000, -1000, -500, 0, 750, 1500, 1500}));
}

}  // namespace

TESTS(digests_are_those_of_the_standard, a_good_bundle_is_read_as_it_stands, a_wrong_field_is_named,
      what_nests_too_deep_is_refused, a_damaged_file_is_named, only_regular_files_of_the_folder_are_read,
      a_graph_that_reaches_out_is_refused, hu_are_those_of_the_knots)
