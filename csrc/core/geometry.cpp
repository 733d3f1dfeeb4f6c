#include "core/manifest.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "x2ct/error.h"

namespace x2ct {
namespace {

constexpr std::size_t kMostGeometryBytes = 1 << 20;
constexpr double kFarMm = 1e6, kMostMatrix = 1e12;

bool is_view_name(std::string_view text) { return is_word(text, "_.+-", 32); }  // it becomes a file's name
bool is_beam(std::string_view text) { return text == "parallel" || text == "cone"; }

void read_matrix(Fields& fields, View& view) {
    std::size_t at = 0;
    for (const Json& row : fields.list("matrix", 3, 3)) {
        if (!row.is_array() || row.size() != 4) fields.fail("matrix", shown(row), "three rows of four numbers");
        for (const Json& value : row) view.matrix[at++] = fields.as_number("matrix", value, -kMostMatrix, kMostMatrix);
    }
    check(view);
}

// A view by its beam, angles and distances.
View read_described(Fields& fields, const View& view) {
    const std::string beam = fields.text("beam", "\"parallel\" or \"cone\", or a \"matrix\" instead", is_beam);
    const auto* const named = std::ranges::find(kNamedViews, view.name, &NamedView::name);
    const bool needs_angle = fields.has("angle_deg") || named == kNamedViews.end();
    const double angle = needs_angle ? fields.number("angle_deg", -360, 360) : named->angle_deg;
    const double tilt = fields.has("tilt_deg") ? fields.number("tilt_deg", -kMostTiltDeg, kMostTiltDeg) : 0;
    Detector detector{view.rows, view.columns, view.row_mm, view.column_mm, {}};
    if (fields.has("isocentre_mm")) {
        std::ranges::copy(fields.numbers("isocentre_mm", 3, 3, -kFarMm, kFarMm), detector.isocentre_mm.begin());
    }
    if (beam == "parallel") return parallel_view(view.name, angle, detector, tilt);
    const double sod = fields.number("sod_mm", 1, kFarMm);
    return cone_view(view.name, angle, sod, fields.number("sdd_mm", sod, kFarMm), detector, tilt);
}

View read_view(Fields fields) {
    View view;
    view.name = fields.text("name", "a short word of letters, digits and _.+-", is_view_name);
    const auto shape = fields.integers("shape", 2, 1, kMostPixels);
    const auto spacing = fields.numbers("spacing_mm", 2, 2, 1e-6, kFarMm);
    view.rows = shape[0], view.columns = shape[1], view.row_mm = spacing[0], view.column_mm = spacing[1];
    try {
        if (fields.has("matrix")) {
            read_matrix(fields, view);
        } else {
            view = read_described(fields, view);
        }
    } catch (const InputError& error) {
        const std::string text = error.what(), source = fields.source() + ": ";
        if (text.starts_with(source)) throw;
        throw InputError(source + fields.path() + ": " + text);
    }
    fields.close();
    return view;
}

}  // namespace

Geometry read_geometry(Fields fields) {
    fields.integer("schema", kGeometrySchema, kGeometrySchema);
    Geometry geometry;
    std::vector<View>& views = geometry.views;
    if (fields.has("origin_world_mm")) {
        const auto mm = fields.numbers("origin_world_mm", 3, 3, -kFarMm, kFarMm);
        geometry.origin_world_mm = {mm[0], mm[1], mm[2]};
    }
    for (const Fields& section : fields.sections("views", 1, kMostViews)) {
        View view = read_view(section);
        if (std::ranges::find(views, view.name, &View::name) != views.end()) {
            fields.fail("views", view.name + " twice", "a name of its own for each view");
        }
        views.push_back(std::move(view));
    }
    fields.close();
    return geometry;
}

Json json_of(const std::vector<View>& views) {
    Json list = Json::array();
    for (const View& view : views) {
        Json matrix = Json::array();
        for (std::size_t row = 0; row < 12; row += 4) {
            matrix.push_back({view.matrix[row], view.matrix[row + 1], view.matrix[row + 2], view.matrix[row + 3]});
        }
        list.push_back({{"name", view.name},
                        {"shape", {view.rows, view.columns}},
                        {"spacing_mm", {view.row_mm, view.column_mm}},
                        {"matrix", std::move(matrix)}});
    }
    return {{"schema", kGeometrySchema}, {"views", std::move(list)}};
}

Geometry read_geometry(const std::string& source, std::string_view text) {
    const Json content = parse_json(source, text);
    return read_geometry(Fields(source, content));
}

Geometry load_geometry(const std::string& path) {
    const auto refuse_file = [&](const std::string& found) { refuse(path, "file", found, "a readable geometry file"); };
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rbe"), std::fclose);
    if (!file) refuse_file(std::strerror(errno));
    std::string text(kMostGeometryBytes + 1, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), file.get()));
    if (std::ferror(file.get())) refuse_file(std::strerror(errno));
    if (text.size() > kMostGeometryBytes) refuse_file("more than " + std::to_string(kMostGeometryBytes) + " bytes");
    return read_geometry(path, text);
}

}  // namespace x2ct
