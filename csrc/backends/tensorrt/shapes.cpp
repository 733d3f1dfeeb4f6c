#include "shapes.h"

#include <algorithm>

#include "x2ct/error.h"

namespace x2ct::tensorrt {
namespace {

constexpr const char* kPrefix = "x2ct precision=";

}  // namespace

Shape shape_of(const nvinfer1::Dims& dims) { return dims.nbDims < 0 ? Shape{} : Shape(dims.d, dims.d + dims.nbDims); }

nvinfer1::Dims dims_of(const Shape& shape, const std::string& name) {
    nvinfer1::Dims dims{};
    if (shape.size() > static_cast<std::size_t>(nvinfer1::Dims::MAX_DIMS)) {
        throw InputError(name + ": shape: found " + to_string(shape) + ", expected at most " +
                         std::to_string(nvinfer1::Dims::MAX_DIMS) + " axes");
    }
    dims.nbDims = static_cast<std::int32_t>(shape.size());
    std::ranges::copy(shape, dims.d);
    return dims;
}

bool is_within(const Shape& shape, const Shape& least, const Shape& largest) {
    if (shape.size() != least.size() || shape.size() != largest.size()) return false;
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        if (shape[axis] < least[axis] || shape[axis] > largest[axis]) return false;
    }
    return true;
}

std::string range_text(const Shape& least, const Shape& largest) {
    return least == largest ? to_string(least) : to_string(least) + " to " + to_string(largest);
}

std::string name_for(const std::string& precision) { return kPrefix + precision; }

std::string precision_in(const std::string& name) {
    const std::string prefix = kPrefix;
    return name.starts_with(prefix) ? name.substr(prefix.size()) : "";
}

}  // namespace x2ct::tensorrt
