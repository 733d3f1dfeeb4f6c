// The one instance of the runtime in the process.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <string>
#include <vector>

namespace x2ct::onnxruntime {

/// Takes the runtime's functions out of its opened library. Throws MissingRuntime for one that is older than the
/// headers that this was built with.
void start(void* library);

std::string version();

/// Lives as long as the process: at exit the runtime's own static objects go in an order that is not ours to choose.
Ort::Env& environment();

/// What the runtime logs on this thread while one of these lives; what it logs elsewhere goes nowhere, for a library
/// prints nothing and a failure's text comes with its exception.
class Log {
  public:
    Log();
    ~Log();
    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;

    const std::vector<std::string>& lines() const { return lines_; }

  private:
    std::vector<std::string> lines_;
};

}  // namespace x2ct::onnxruntime
