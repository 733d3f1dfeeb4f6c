// The schema of a bundle's model.json, docs/bundle.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/fields.h"
#include "x2ct/bundle.h"
#include "x2ct/view.h"

namespace x2ct {

inline constexpr std::int64_t kMostFileBytes = (std::int64_t{2} << 30) - 1;  // protobuf's own limit of one message

/// Reads model.json, checked field by field; path and checksum stay empty. `source` is how messages name it.
/// Throws InputError.
OpenedBundle read_manifest(const std::string& source, std::string_view text);

// Views as JSON: what geometry files and the field `geometry` of a bundle's model.json hold.

/// Returns the views of a geometry file's object, each under its own name. Throws InputError that names the field.
Geometry read_geometry(Fields fields);

/// Returns the geometry file's object that `read_geometry` reads, each view by its matrix.
Json json_of(const std::vector<View>& views);

}  // namespace x2ct
