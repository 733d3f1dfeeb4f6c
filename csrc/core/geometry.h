// Views as JSON: what geometry files and the field `geometry` of a bundle's model.json hold.
#pragma once

#include <vector>

#include "core/fields.h"
#include "x2ct/view.h"

namespace x2ct {

/// Returns the views of a geometry file's object, each under its own name. Throws InputError that names the field.
Geometry read_geometry(Fields fields);

/// Returns the geometry file's object that `read_geometry` reads, each view by its matrix.
Json json_of(const std::vector<View>& views);

}  // namespace x2ct
