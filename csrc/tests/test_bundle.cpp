// The bundle reader, from C++: tests/test_bundle.py tries everything that may be wrong with a bundle.
#include "check.h"
#include "core/bundle_files.h"
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

// tests/test_bundle.py has all faults; here are those that say that messages come through.
void a_wrong_field_is_named() {
    const tiny::Folder folder;
    const std::vector<std::array<std::string, 3>> faults = {
        {R"("schema": 1, "name")", R"("schema": 2, "name")", "schema: found 2, expected 1"},
        {R"("beam": "parallel")", R"("beam": "cone", "sod_mm": 1500)", "geometry.views[0].sdd_mm"},
        {R"("parity": {})", R"("parity": {}, "extra": 1)", "extra: found a field, expected only"},
        {R"("parity": {})", R"("parity": {"a": NaN})", "line 1: found a syntax error at NaN"},
    };
    for (const auto& [old, by, named] : faults) {
        tiny::write(folder, replaced(tiny::model_json(), old, by));
        const std::string found = complaint(folder.path());
        if (!contains(found, named)) std::fprintf(stderr, "%s: said: %s\n", by.c_str(), found.c_str());
        CHECK(contains(found, named) && contains(found, "model.json") && !contains(found, "\n"));
    }
}

void a_described_view_may_be_tilted() {
    const tiny::Folder folder;
    tiny::write(folder, replaced(tiny::model_json(), R"("beam": "parallel")", R"("beam": "parallel", "tilt_deg": 10)"));
    const x2ct::View view = x2ct::open_bundle(folder.path()).views[0];
    const x2ct::Detector detector{view.rows, view.columns, view.row_mm, view.column_mm, {}};
    CHECK(view == x2ct::parallel_view("ap", 0, detector, 10));
    CHECK(view.matrix != x2ct::parallel_view("ap", 0, detector).matrix);
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

void hu_are_those_of_the_knots() {
    const x2ct::Intensity map{{-1000, 0, 1500}, {-1, 0, 1}};
    std::vector<float> values = {-2, -1, -0.5, 0, 0.5, 1, 2};
    map.to_hu(values.data(), values.data(), static_cast<std::int64_t>(values.size()));
    CHECK((values == std::vector<float>{-1000, -1000, -500, 0, 750, 1500, 1500}));
}

}  // namespace

TESTS(digests_are_those_of_the_standard, a_good_bundle_is_read_as_it_stands, a_wrong_field_is_named,
      a_described_view_may_be_tilted, a_damaged_file_is_named, hu_are_those_of_the_knots)
