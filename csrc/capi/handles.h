// capi/ is the C face of the core: x2ct.h, and nothing else that libx2ct.so offers. What lies behind its handles:
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "x2ct/pipeline.h"
#include "x2ct/x2ct.h"

struct x2ct_sampler {
    explicit x2ct_sampler(std::unique_ptr<x2ct::Pipeline> made)
        : pipeline(std::move(made)), precision(pipeline->precision()) {}

    std::unique_ptr<x2ct::Pipeline> pipeline;
    std::string precision;
};

struct x2ct_cancel {
    std::atomic<bool> cancelled{false};
};
