// include/x2ct/ is the door of the core: what it offers to anyone who embeds it. No Python, no backend's types.
//
// The one family of exceptions, each with the exit code of the command line; x2ct/errors.py mirrors it.
#pragma once

#include <stdexcept>
#include <string>

#define X2CT_VISIBLE __attribute__((visibility("default")))  // thrown in one shared library, caught in another

namespace x2ct {

/// Something failed while running. The text is one line that a user can act on.
class X2CT_VISIBLE Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
    virtual int exit_code() const noexcept { return 1; }
};

/// Wrong use or bad input.
class X2CT_VISIBLE InputError : public Error {
  public:
    using Error::Error;
    int exit_code() const noexcept override { return 2; }
};

/// A runtime, device or precision was asked for and can't be had; the text says what to install.
class X2CT_VISIBLE MissingRuntime : public Error {
  public:
    using Error::Error;
    int exit_code() const noexcept override { return 3; }
};

/// The host or the device ran out of memory.
class X2CT_VISIBLE OutOfMemory : public Error {
  public:
    using Error::Error;
    int exit_code() const noexcept override { return 4; }
};

/// The run was cancelled between two evaluations.
class X2CT_VISIBLE Cancelled : public Error {
  public:
    using Error::Error;
    int exit_code() const noexcept override { return 130; }
};

}  // namespace x2ct
