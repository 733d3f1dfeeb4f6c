// The library's door.
#include "devices/cuda/cuda.h"
#include "x2ct/devices.h"
#include "x2ct/error.h"

extern "C" X2CT_VISIBLE std::uint32_t x2ct_device_abi() { return x2ct::kDeviceAbi; }

extern "C" X2CT_VISIBLE std::vector<std::string> x2ct_device_list() { return x2ct::cuda::list(); }

extern "C" X2CT_VISIBLE x2ct::Device* x2ct_device_open(int index) { return x2ct::cuda::open(index); }
