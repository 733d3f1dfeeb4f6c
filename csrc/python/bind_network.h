// What Python holds of a network.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "x2ct/network.h"

namespace x2ct::python {

/// lib/ beside this module, wherever it is installed: the backends' libraries.
std::string library_dir();

/// A network with one session of its own for calls. Samplers make their own from `network`, and outlive this object.
struct PyNetwork {
    PyNetwork(std::shared_ptr<Network> loaded, int threads_asked)
        : network(std::move(loaded)), threads(threads_asked) {}

    std::shared_ptr<Network> network;
    int threads;
    std::mutex mutex;  ///< of the session: calls from several threads wait for each other
    std::unique_ptr<Session> session;
};

}  // namespace x2ct::python
