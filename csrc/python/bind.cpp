#include "bind.h"

#include <algorithm>

#include "x2ct/error.h"

namespace py = pybind11;

namespace x2ct::python {

py::array as_array(py::handle value, const std::string& name) {
    if (!py::isinstance<py::array>(value)) {
        throw InputError(name + ": found " + py::str(py::type::of(value).attr("__name__")).cast<std::string>() +
                         ", expected a NumPy array");
    }
    return py::reinterpret_borrow<py::array>(value);
}

const float* checked(const py::array& array, const std::string& name) {
    if (!py::isinstance<py::array_t<float>>(array)) {
        throw InputError(name + ": dtype: found " + py::str(array.dtype()).cast<std::string>() + ", expected float32");
    }
    const auto address = reinterpret_cast<std::uintptr_t>(array.data());
    if (!(array.flags() & py::array::c_style) || address % alignof(float) != 0) {
        throw InputError(name +
                         ": layout: found strides that aren't C's, expected C-contiguous; use numpy.ascontiguousarray");
    }
    return static_cast<const float*>(array.data());
}

Intensity checked_map(Knots knots) {
    const auto& [hu, x] = knots;
    const bool rises = std::ranges::adjacent_find(x, [](double a, double b) { return !(a < b); }) == x.end();
    if (x.size() < 2 || hu.size() != x.size() || !rises) {
        throw InputError("knots: found " + std::to_string(hu.size()) + " HU and " + std::to_string(x.size()) +
                         " x, expected two or more of each, x rising");
    }
    return {std::move(knots.first), std::move(knots.second)};
}

Shape shape_of(const py::array& array) { return Shape(array.shape(), array.shape() + array.ndim()); }

Shape checked_shape(const std::vector<std::int64_t>& shape, const std::string& name) {
    constexpr std::int64_t kMost = std::int64_t{1} << 40;  // far past any memory, far below any overflow
    std::int64_t count = 1;
    for (const std::int64_t axis : shape) {
        if (axis < 1 || axis > kMost / count) {
            throw InputError(name + ": shape: found " + to_string(shape) +
                             ", expected sizes of at least 1 that fit into memory");
        }
        count *= axis;
    }
    if (shape.empty()) throw InputError(name + ": shape: found [], expected at least one axis");
    return shape;
}

py::array_t<float> new_array(const Shape& shape) {
    return py::array_t<float>(std::vector<py::ssize_t>(shape.begin(), shape.end()));
}

}  // namespace x2ct::python

namespace py = pybind11;

namespace x2ct::python {
namespace {

class CallableSession : public Session {
  public:
    CallableSession(py::handle function, Shape shape) : function_(function), shape_(std::move(shape)) {}

    void set_input(const std::string& name, const float* data, const Shape&) override {
        (name == "x" ? x_ : sigma_) = data;
    }
    void set_output(const std::string&, float* data, const Shape&) override { denoised_ = data; }

    void evaluate() override {
        const py::gil_scoped_acquire acquire;
        py::array_t<float> x = new_array(shape_);  // a copy: the function may keep it, the sampler's memory goes
        std::copy_n(x_, x.size(), x.mutable_data());
        const auto count = x.size();
        const py::object result = function_(std::move(x), static_cast<double>(*sigma_));
        const auto array = py::array_t<float, py::array::c_style | py::array::forcecast>::ensure(result);
        if (!array) throw py::error_already_set();
        if (shape_of(array) != shape_) {
            throw InputError("denoiser: shape: found " + to_string(shape_of(array)) + ", expected " +
                             to_string(shape_));
        }
        std::copy_n(array.data(), count, denoised_);
    }

    TensorView output(const std::string&) override { return {denoised_, shape_}; }

  private:
    py::handle function_;
    Shape shape_;
    const float* x_ = nullptr;
    const float* sigma_ = nullptr;
    float* denoised_ = nullptr;
};

class CallableNetwork : public Network {
  public:
    CallableNetwork(py::function function, const Shape& shape)
        : function_(std::move(function)),
          shape_(shape),
          inputs_{{"x", shape}, {"sigma", {-1}}},
          outputs_{{"denoised", shape}} {}
    ~CallableNetwork() override {
        const PyGILState_STATE state = PyGILState_Ensure();  // its last owner may hold no GIL; nothing here can throw
        Py_XDECREF(function_.release().ptr());
        PyGILState_Release(state);
    }

    const std::vector<TensorInfo>& inputs() const override { return inputs_; }
    const std::vector<TensorInfo>& outputs() const override { return outputs_; }
    std::string device() const override { return "cpu"; }
    std::string precision() const override { return "f32"; }
    std::string runtime_version() const override { return "python"; }
    std::unique_ptr<Session> session() override { return std::make_unique<CallableSession>(function_, shape_); }

  private:
    py::function function_;
    Shape shape_;
    std::vector<TensorInfo> inputs_;
    std::vector<TensorInfo> outputs_;
};

}  // namespace

std::shared_ptr<Network> callable_network(py::function function, const Shape& shape) {
    return std::make_shared<CallableNetwork>(std::move(function), shape);
}

}  // namespace x2ct::python
