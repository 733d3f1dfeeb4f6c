// Where an artefact runs and in what: the device and the precision that were asked for, decided. No types of PyTorch.
#pragma once

#include <string>
#include <vector>

namespace x2ct::torch {

/// "cpu" or "cuda", and which one.
struct Place {
    std::string kind;
    int index = 0;

    bool is_cpu() const { return kind == "cpu"; }
    std::string name() const { return is_cpu() ? kind : kind + ":" + std::to_string(index); }
};

/// Throws InputError for what is no device's name.
Place place_of(const std::string& device);

/// What a float32 artefact can be computed in on such a device, fastest first.
std::vector<std::string> precisions_of(const std::string& kind);

/// "auto" decided. Throws InputError for a name that none knows, MissingRuntime for one that can't be had.
std::string choose_precision(const std::string& wanted, const Place& place);

}  // namespace x2ct::torch
