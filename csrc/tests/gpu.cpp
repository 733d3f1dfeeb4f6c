// The device's laws on a GPU: gpu_laws LIBRARY_DIR, the folder of libx2ct_cuda.so.
#include <cstdlib>

#include "pipeline_laws.h"
#include "ray_laws.h"
#include "x2ct/devices.h"

namespace {

std::string& library_dir() {
    static std::string folder;
    return folder;
}

void too_much_memory_is_an_error_of_its_own() {
    const auto device = laws::gpu();
    const std::int64_t free = device->free_bytes().value_or(0);
    CHECK_THROWS(x2ct::OutOfMemory, device->allocate(static_cast<std::size_t>(free)));  // four bytes each
    CHECK(device->allocate(1024) != nullptr);
}

}  // namespace

std::shared_ptr<x2ct::Device> laws::gpu() { return x2ct::open_device("cuda", library_dir()); }

int main(int count, char** arguments) {
    if (count != 2) return EXIT_FAILURE;
    library_dir() = arguments[1];
    return check::run({DEVICE_LAWS, RAY_LAWS, PIPELINE_LAWS, too_much_memory_is_an_error_of_its_own});
}
