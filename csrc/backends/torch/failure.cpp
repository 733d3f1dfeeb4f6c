#include "failure.h"

#include <c10/util/Exception.h>

namespace x2ct::torch {

std::string Failures::text_of(const std::exception& error) {
    const auto* const own = dynamic_cast<const c10::Error*>(&error);
    return one_line(own == nullptr ? error.what() : own->what_without_backtrace());
}

}  // namespace x2ct::torch
