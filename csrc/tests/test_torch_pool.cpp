// The private pool of what the torch backend records: one user from the first evaluation until it goes, whatever
// throws.
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#include "backends/torch/pool.h"
#include "check.h"

namespace {

using x2ct::torch::Pool;

// PyTorch's rules: begin() while the pool is open and end() while it isn't are errors there, and a pool without users
// may be given away.
struct Allocator {
    int users = 0, emptied = 0, errors = 0;
    bool open = false;
};

class Calls : public x2ct::torch::PoolCalls {
  public:
    explicit Calls(Allocator& allocator) : allocator_(allocator) {}
    void begin() override {
        allocator_.errors += allocator_.open;
        allocator_.open = true;
        ++allocator_.users;
    }
    void end() override {
        allocator_.errors += !allocator_.open;
        allocator_.open = false;
    }
    void release() override { allocator_.errors += --allocator_.users < 0; }
    void empty() override {
        allocator_.errors += allocator_.users != 0;
        ++allocator_.emptied;
    }

  private:
    Allocator& allocator_;
};

void its_memory_is_kept_between_evaluations_and_given_back_at_the_end() {
    Allocator allocator;
    {
        Pool pool(std::make_unique<Calls>(allocator));
        for (int evaluation = 0; evaluation < 4; ++evaluation) {
            pool.within([&] { CHECK(allocator.open && allocator.users >= 1); });
            CHECK(!allocator.open && allocator.users == 1);
        }
        CHECK(allocator.emptied == 0);
    }
    CHECK(allocator.users == 0 && allocator.emptied == 1 && allocator.errors == 0);
}

void an_evaluation_that_throws_closes_it() {
    Allocator allocator;
    {
        Pool pool(std::make_unique<Calls>(allocator));
        for (int attempt = 0; attempt < 2; ++attempt) {
            CHECK_THROWS(std::runtime_error, (pool.within([] { throw std::runtime_error("no kernel"); }), 0));
            CHECK(!allocator.open && allocator.users == 1);
        }
    }
    CHECK(allocator.users == 0 && allocator.errors == 0);
}

void one_that_was_never_used_is_nobodys() {
    Allocator allocator;
    {
        const Pool pool(std::make_unique<Calls>(allocator));
    }
    CHECK(allocator.users == 0 && allocator.emptied == 0 && allocator.errors == 0);
}

}  // namespace

TESTS(its_memory_is_kept_between_evaluations_and_given_back_at_the_end, an_evaluation_that_throws_closes_it,
      one_that_was_never_used_is_nobodys)
