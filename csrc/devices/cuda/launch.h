// What the GPU is asked to do: each is a function of an index, from kernels/, with what it needs beside the index.
#pragma once

#include <cuda_runtime_api.h>
#include <cstdint>

#include "kernels/ray_kernel.h"
#include "kernels/row.h"
#include "kernels/voxels.h"

namespace x2ct::cuda {

/// A row of the run's table, which lies in the device's memory, so that a recorded launch reads the coefficients of the
/// run that replays it. Four voxels an index.
struct TableRow {
    const kernels::RowProgram* table;
    int row;
    X2CT_BOTH void operator()(std::int64_t quad) const { kernels::run_row(table[row], quad); }
};

/// A row that is in no table: the start of a run.
struct OneRow {
    kernels::RowProgram program;
    X2CT_BOTH void operator()(std::int64_t quad) const { kernels::run_row(program, quad); }
};

struct Box {
    kernels::BoxProgram program;
    X2CT_BOTH void operator()(std::int64_t piece) const { kernels::copy_piece(program, piece); }
};

/// One element an index of what consistency asks.
template <typename Work>
struct OneElement {
    Work work;
    X2CT_BOTH void operator()(std::int64_t i) const { work.template run<1>(i, i + 1); }
};

/// Brings the kernels to the GPU now: the driver would do so at their first launch, which may be one that is recorded.
void load_kernels();

/// Queues work(i) for every i in [0, count). Throws Error.
void launch(const TableRow& work, std::int64_t count, cudaStream_t stream);
void launch(const OneRow& work, std::int64_t count, cudaStream_t stream);
void launch(const Box& work, std::int64_t count, cudaStream_t stream);
void launch(const RayKernel& kernel, cudaStream_t stream);

}  // namespace x2ct::cuda
