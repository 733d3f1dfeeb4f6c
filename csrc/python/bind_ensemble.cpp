// Mean and spread of many samples.
#include <memory>

#include "bind.h"
#include "x2ct/ensemble.h"
#include "x2ct/error.h"

namespace py = pybind11;
using namespace py::literals;

namespace x2ct::python {
namespace {

// Owns the two volumes, which Python takes when the last sample has been added.
class PyEnsemble {
  public:
    explicit PyEnsemble(int threads) : threads_(threads) {}

    void add(const py::array& volume) {
        const float* const from = checked(volume, "sample");
        if (!ensemble_) {
            mean_ = new_array(shape_of(volume));
            squares_ = new_array(shape_of(volume));
            ensemble_ =
                std::make_unique<Ensemble>(mean_.mutable_data(), squares_.mutable_data(), volume.size(), threads_);
        }
        if (shape_of(volume) != shape_of(mean_)) {
            throw InputError("sample: shape: found " + to_string(shape_of(volume)) + ", expected " +
                             to_string(shape_of(mean_)));
        }
        const py::gil_scoped_release release;
        ensemble_->add(from);
    }

    py::tuple finish() {
        if (!ensemble_) throw InputError("samples: found none, expected at least one");
        {
            const py::gil_scoped_release release;
            ensemble_->finish();
        }
        ensemble_.reset();
        return py::make_tuple(std::move(mean_), std::move(squares_));
    }

  private:
    int threads_;
    py::array_t<float> mean_, squares_;
    std::unique_ptr<Ensemble> ensemble_;
};

}  // namespace

void bind_ensemble(py::module_& module) {
    py::class_<PyEnsemble>(module, "Ensemble", "Mean and standard deviation of volumes that come one by one.")
        .def(py::init<int>(), "threads"_a = 0)
        .def("add", &PyEnsemble::add, "volume"_a)
        .def("finish", &PyEnsemble::finish);
}

}  // namespace x2ct::python
