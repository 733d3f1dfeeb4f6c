// A row's linear combinations, four voxels at a time: those that share a block of noise.
#pragma once

#include <cstdint>

#include "kernels/normal.h"

namespace x2ct::kernels {

/// A RowKernel (include/x2ct/device.h) as devices keep it: plain data.
struct RowProgram {
    struct Weights {
        float x, y, h[4], noise;
    };

    const float* x;
    const float* y;
    const float* denoised;
    const float* h[4];
    float* new_x;
    float* new_y;
    float* new_h;
    std::int64_t count;
    std::uint64_t seed;
    std::uint32_t draw, sample;
    float a, b;
    Weights to_x, to_y;
};

struct Quad {
    float v[4] = {0, 0, 0, 0};
};

// Registers are aligned to 16 bytes at least, and a quad begins at a multiple of four voxels.
X2CT_BOTH Quad load(const float* from, std::int64_t at, int count) {
    Quad quad;
#if defined(__CUDA_ARCH__)
    if (count == 4) {
        const float4 four = *reinterpret_cast<const float4*>(from + at);
        quad.v[0] = four.x, quad.v[1] = four.y, quad.v[2] = four.z, quad.v[3] = four.w;
        return quad;
    }
#endif
    for (int j = 0; j < 4; ++j) {
        if (j < count) quad.v[j] = from[at + j];
    }
    return quad;
}

X2CT_BOTH void store(float* to, std::int64_t at, int count, const Quad& quad) {
#if defined(__CUDA_ARCH__)
    if (count == 4) {
        *reinterpret_cast<float4*>(to + at) = make_float4(quad.v[0], quad.v[1], quad.v[2], quad.v[3]);
        return;
    }
#endif
    for (int j = 0; j < 4; ++j) {
        if (j < count) to[at + j] = quad.v[j];
    }
}

// The terms of a sum come in the table's order, one product and one addition each; a term of weight 0 is none.
struct QuadSum {
    Quad sum;
    bool empty = true;

    X2CT_BOTH void add(float weight, const Quad& term) {
        if (weight == 0) return;
        for (int j = 0; j < 4; ++j) sum.v[j] = empty ? weight * term.v[j] : sum.v[j] + weight * term.v[j];
        empty = false;
    }
};

/// What a row reads of four voxels: each register once, and no register that it has no weight for.
struct RowInputs {
    Quad x, y, h[4], noise;
};

X2CT_BOTH RowInputs read_row(const RowProgram& row, std::int64_t quad, int count) {
    const std::int64_t at = 4 * quad;
    const bool to_x = row.new_x != nullptr, to_y = row.new_y != nullptr;
    const auto wanted = [&](float in_x, float in_y) { return (to_x && in_x != 0) || (to_y && in_y != 0); };
    RowInputs in;
    if (wanted(row.to_x.x, row.to_y.x)) in.x = load(row.x, at, count);
    const bool wants_h0 = row.new_h != nullptr || wanted(row.to_x.h[0], row.to_y.h[0]);
    if (wanted(row.to_x.y, row.to_y.y) || (wants_h0 && row.a != 0)) in.y = load(row.y, at, count);
    if (wants_h0) {
        QuadSum h0;
        h0.add(row.a, in.y);
        if (row.b != 0) h0.add(row.b, load(row.denoised, at, count));
        in.h[0] = h0.sum;
    }
    for (int k = 1; k < 4; ++k) {
        if (wanted(row.to_x.h[k], row.to_y.h[k])) in.h[k] = load(row.h[k], at, count);
    }
    if (wanted(row.to_x.noise, row.to_y.noise)) {
        normal_block(static_cast<std::uint64_t>(quad), row.seed, row.draw, row.sample, in.noise.v);
    }
    return in;
}

X2CT_BOTH Quad combine(const RowProgram::Weights& weights, const RowInputs& in) {
    QuadSum sum;
    sum.add(weights.x, in.x);
    sum.add(weights.y, in.y);
    for (int k = 0; k < 4; ++k) sum.add(weights.h[k], in.h[k]);
    sum.add(weights.noise, in.noise);
    return sum.sum;
}

/// The voxels 4 quad .. 4 quad + 3, as far as there are any. All is read before anything is written.
X2CT_BOTH void run_row(const RowProgram& row, std::int64_t quad) {
    const std::int64_t at = 4 * quad, left = row.count - at;
    const int count = left < 4 ? static_cast<int>(left) : 4;
    const RowInputs in = read_row(row, quad, count);
    if (row.new_x != nullptr) store(row.new_x, at, count, combine(row.to_x, in));
    if (row.new_y != nullptr) store(row.new_y, at, count, combine(row.to_y, in));
    const bool is_there = row.new_h == row.denoised && row.a == 0 && row.b == 1;  // H0 is D
    if (row.new_h != nullptr && !is_there) store(row.new_h, at, count, in.h[0]);
}

X2CT_BOTH std::int64_t quads(std::int64_t count) { return (count + 3) / 4; }

}  // namespace x2ct::kernels
