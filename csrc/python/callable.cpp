#include "callable.h"

#include <algorithm>

#include "bind.h"
#include "x2ct/error.h"

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
