# The CUDA device: a library of its own with the CUDA runtime linked in, so that it loads where there is no GPU and no
# driver, and says so. One file is for nvcc, the rest is C++. A build without nvcc goes on without the device.
#
#   -DX2CT_CUDA=ON stops where nvcc is missing; -DCUDAToolkit_ROOT=FOLDER says where it is
find_package(CUDAToolkit 12.3 QUIET)
if(NOT CUDAToolkit_NVCC_EXECUTABLE OR NOT TARGET CUDA::cudart_static)
    if(X2CT_CUDA STREQUAL "AUTO")
        message(STATUS "No CUDA device: nvcc of CUDA 12.3 or newer was not found. Name its folder: -DCUDAToolkit_ROOT=FOLDER")
        return()
    endif()
    message(FATAL_ERROR "X2CT_CUDA: found no nvcc of CUDA 12.3 or newer; name its folder: -DCUDAToolkit_ROOT=FOLDER")
endif()

# Machine code for what is common, and an intermediate form for what follows.
set(X2CT_CUDA_ARCHITECTURES "80;86;89;90" CACHE STRING "GPUs (compute capability times 10) to compile for")
set(gencode "")
foreach(architecture ${X2CT_CUDA_ARCHITECTURES})
    list(APPEND gencode -gencode=arch=compute_${architecture},code=sm_${architecture})
    set(newest ${architecture})
endforeach()
list(APPEND gencode -gencode=arch=compute_${newest},code=compute_${newest})
message(STATUS "CUDA device: nvcc ${CUDAToolkit_VERSION} for ${X2CT_CUDA_ARCHITECTURES}")

# As on the host, the same seed must give the same bits: no contraction, exact division and square root, denormals kept.
set(launch "${CMAKE_BINARY_DIR}/cuda_launch.o")
add_custom_command(
    OUTPUT ${launch}
    COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -std=c++20 -O3 -fmad=false -prec-div=true -prec-sqrt=true -ftz=false
            --expt-relaxed-constexpr -ccbin ${CMAKE_CXX_COMPILER} -Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off
            ${gencode} -I${CMAKE_SOURCE_DIR}/csrc -I${CMAKE_SOURCE_DIR}/csrc/include
            -MD -MF ${launch}.d -c ${CMAKE_SOURCE_DIR}/csrc/devices/cuda/launch.cu -o ${launch}
    DEPENDS csrc/devices/cuda/launch.cu DEPFILE ${launch}.d COMMENT "Compiling csrc/devices/cuda/launch.cu" VERBATIM)
file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/devices/cuda/*.cpp)
add_library(x2ct_cuda MODULE ${cuda_sources} ${launch})
target_include_directories(x2ct_cuda PRIVATE csrc csrc/include)
target_link_libraries(x2ct_cuda PRIVATE CUDA::cudart_static)
target_link_options(x2ct_cuda PRIVATE -Wl,--exclude-libs,ALL -Wl,--no-undefined)
set_target_properties(x2ct_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${package_dir}/lib")
