// Bundles, geometry files and views as the core reads and makes them, and the constants that Python shares.
#include "x2ct/bundle.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "bind.h"
#include "x2ct/consistency.h"
#include "x2ct/error.h"
#include "x2ct/view.h"
#include "x2ct/xray.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {
namespace {

using Pair = std::array<double, 2>;
using Pixels = std::array<std::int64_t, 2>;
using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

// Name, matrix, shape and spacing, as Python's View takes them.
py::tuple as_python(const View& view) {
    py::array_t<double> matrix({3, 4});
    std::ranges::copy(view.matrix, matrix.mutable_data());
    return py::make_tuple(view.name, matrix, py::make_tuple(view.rows, view.columns),
                          py::make_tuple(view.row_mm, view.column_mm));
}

// The views, and where the CT lies that they were projected from, or None.
py::tuple as_python(const Geometry& geometry) {
    py::list list;
    for (const View& view : geometry.views) list.append(as_python(view));
    return py::make_tuple(list, geometry.origin_world_mm);
}

py::tuple open(const std::string& folder) {
    OpenedBundle opened;
    {
        const py::gil_scoped_release release;
        opened = open_bundle_with_manifest(folder);
    }
    return py::make_tuple(opened.manifest, opened.bundle.checksum);
}

double angle_of(const std::string& name, std::optional<double> angle_deg) {
    if (angle_deg) return *angle_deg;
    const auto* const named = std::ranges::find(kNamedViews, name, &NamedView::name);
    if (named == kNamedViews.end()) {
        throw InputError("view " + name + ": angle: found none, expected degrees, or one named ap, pa or lateral");
    }
    return named->angle_deg;
}

py::tuple parallel(const std::string& name, std::optional<double> angle_deg, double tilt_deg, const Pixels& shape,
                   const Pair& spacing_mm, const std::array<double, 3>& isocentre_mm) {
    const Detector detector{shape[0], shape[1], spacing_mm[0], spacing_mm[1], isocentre_mm};
    return as_python(parallel_view(name, angle_of(name, angle_deg), detector, tilt_deg));
}

// Without a spacing pixels are as large at the isocentre as a parallel beam's.
py::tuple cone(const std::string& name, std::optional<double> angle_deg, double tilt_deg, double sod_mm, double sdd_mm,
               const Pixels& shape, std::optional<Pair> spacing_mm, const std::array<double, 3>& isocentre_mm) {
    const double usual = Detector{}.row_mm * (sdd_mm / sod_mm);
    const auto [row_mm, column_mm] = spacing_mm.value_or(Pair{usual, usual});
    const Detector detector{shape[0], shape[1], row_mm, column_mm, isocentre_mm};
    return as_python(cone_view(name, angle_of(name, angle_deg), sod_mm, sdd_mm, detector, tilt_deg));
}

void check_view(const std::string& name, const Doubles& matrix, const Pixels& shape, const Pair& spacing_mm) {
    if (matrix.ndim() != 2 || matrix.shape(0) != 3 || matrix.shape(1) != 4) {
        throw InputError("view " + name + ": matrix: found shape " + to_string(shape_of(matrix)) + ", expected [3, 4]");
    }
    View view{name, {}, shape[0], shape[1], spacing_mm[0], spacing_mm[1]};
    std::copy_n(matrix.data(), view.matrix.size(), view.matrix.begin());
    check(view);
}

void add_constants(py::module_& module) {
    py::dict angles, slots;
    for (const NamedView& view : kNamedViews) {
        angles[py::str(view.name.data(), view.name.size())] = view.angle_deg;
        slots[py::str(view.name.data(), view.name.size())] = view.slot;
    }
    module.attr("ANGLES_DEG") = angles;
    module.attr("SLOT_OF") = slots;
    module.attr("BUNDLE_SCHEMA") = kBundleSchema;
    module.attr("GEOMETRY_SCHEMA") = kGeometrySchema;
    module.attr("OPSET") = kOpset;
    module.attr("MAX_MANIFEST_BYTES") = kMostManifestBytes;
    module.attr("MAX_VIEWS") = kMostViews;
    module.attr("MU_WATER_PER_MM") = kWaterPerMm;
    module.attr("LINE_INTEGRALS") = py::make_tuple(kLeastLineIntegral, kMostLineIntegral);
}

}  // namespace

void bind_bundle(py::module_& module) {
    add_constants(module);
    module.def("open_bundle", &open, "folder"_a);
    module.def("load_geometry", [](const std::string& path) { return as_python(load_geometry(path)); }, "path"_a);
    module.def(
        "read_geometry",
        [](const std::string& source, const std::string& text) { return as_python(read_geometry(source, text)); },
        "source"_a, "text"_a);
    module.def("parallel_view", &parallel, "name"_a, "angle_deg"_a, "tilt_deg"_a, "shape"_a, "spacing_mm"_a,
               "isocentre_mm"_a);
    module.def("cone_view", &cone, "name"_a, "angle_deg"_a, "tilt_deg"_a, "sod_mm"_a, "sdd_mm"_a, "shape"_a,
               "spacing_mm"_a, "isocentre_mm"_a);
    module.def("check_view", &check_view, "name"_a, "matrix"_a, "shape"_a, "spacing_mm"_a);
}

}  // namespace x2ct::python
