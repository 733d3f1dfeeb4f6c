// The CUDA device over a runtime that is emulated on the host (emulated/): its kernels are the very functions that the
// GPU runs, so that they are compared with the CPU's bit by bit; and its stream puts all work off until somebody waits,
// so that what is queued, recorded, replayed and waited for can be counted.
#include "devices/cuda/cuda.h"
#include "pipeline_laws.h"
#include "ray_laws.h"
#include "x2ct/device_check.h"

std::shared_ptr<x2ct::Device> laws::gpu() { return std::shared_ptr<Device>(x2ct::cuda::open(0)); }

namespace {

using namespace laws;
using emulated::machine;

void what_is_missing_is_one_line() {
    const auto line = [] {
        try {
            x2ct::cuda::list();
        } catch (const x2ct::MissingRuntime& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    machine() = {};
    CHECK(x2ct::cuda::list() == std::vector<std::string>{"Emulated, compute capability 9.0, 1 GiB"});
    machine().count_status = cudaErrorInsufficientDriver;
    machine().driver = 0;
    CHECK(line().find("no NVIDIA driver") != std::string::npos);
    machine().driver = 12040;
    CHECK(line().find("for CUDA 12.4, expected one for 13.0") != std::string::npos);
    machine().count_status = cudaErrorNoDevice;
    CHECK(line().find("sees no GPU") != std::string::npos);
    machine() = {};
    machine().capability = 7;
    CHECK_THROWS(x2ct::MissingRuntime, x2ct::cuda::open(0));
    machine() = {};
}

void memory_is_kept_and_given_up_in_need() {
    machine() = {};
    machine().bytes = std::size_t{10} << 20;
    const auto device = gpu();
    float* const first = device->allocate(1 << 20);
    device->release(first);
    CHECK(device->allocate(1 << 20) == first);
    CHECK(machine().allocations == 1);
    device->release(first);
    CHECK(device->free_bytes().value_or(0) == std::int64_t{10} << 20);
    float* const other = device->allocate(2 << 20);  // fits only where the first is given up
    CHECK(machine().frees == 1);
    CHECK_THROWS(x2ct::OutOfMemory, device->allocate(1 << 20));
    CHECK_THROWS(x2ct::OutOfMemory, device->allocate(std::size_t{1} << 62));
    device->release(other);
    device->release(device->allocate(1 << 20));
    machine().bytes = std::size_t{1} << 30;
}

void each_row_is_recorded_once_and_replayed() {
    Rig rig(gpu());
    const auto table = table_of("dpmpp-2m");
    const int rows = table.evaluations(), before = machine().graphs;
    rig.run(table);
    CHECK(machine().graphs - before == rows - 1);  // the very first one warms up
    rig.run(table);                                // may get other memory than the first: from here on it is the same
    const int settled = machine().graphs, replays = machine().replays;
    rig.run(table);
    CHECK(machine().graphs == settled);
    CHECK(machine().replays - replays == rows);
    rig.run(table_of("dpmpp-2m", 5));
    CHECK(machine().graphs - settled == 5);  // another number of steps is another key
}

void the_whole_loop_is_one_graph() {
    Rig rig(gpu());
    const auto table = table_of("unipc-3");
    x2ct::RunOptions options;
    options.at_once = true;
    rig.run(table), rig.run(table, options);
    const int replays = machine().replays, waits = machine().waits;
    rig.run(table, options);
    CHECK(machine().replays - replays == 1);
    CHECK(machine().waits - waits == 1);  // for the result
}

void nothing_waits_allocates_or_copies_but_what_says_so() {
    Rig rig(gpu());
    const auto table = table_of("unipc-2");
    const int rows = table.evaluations();
    rig.run(table), rig.run(table);
    const auto before = machine();
    const std::int64_t told = rig.device->waits();
    rig.run(table);
    CHECK(machine().allocations == before.allocations);
    CHECK(machine().frees == before.frees);
    CHECK(machine().waits - before.waits == rows + 1);                    // each row, and the result
    CHECK(machine().waits - before.waits == rig.device->waits() - told);  // no hidden one
    CHECK(machine().uploads - before.uploads == 2);                       // noise levels and coefficients
    CHECK(machine().downloads - before.downloads == 1);
}

void two_rows_are_in_flight_and_progress_tells_of_done_ones() {
    Rig rig(gpu());
    const auto table = table_of("dpmpp-2m");
    std::vector<int> steps;
    x2ct::RunOptions options;
    options.progress = [&](const x2ct::Progress& now) {
        steps.push_back(now.step);
        const auto queued = static_cast<cudaStream_t>(rig.device->stream())->queue.size();
        CHECK(now.step == now.total ? queued == 0 : queued > 0);
    };
    rig.run(table, options), rig.run(table, options);
    steps.clear();
    rig.run(table, options);
    CHECK((steps == std::vector<int>{1, 2, 3, 4, 5, 6}));
}

void a_cancelled_run_leaves_nothing_queued() {
    Rig rig(gpu());
    std::atomic<bool> cancel = false;
    x2ct::RunOptions options;
    options.cancel = &cancel;
    options.progress = [&](const x2ct::Progress& now) { cancel = now.step == 2; };
    CHECK_THROWS(x2ct::Cancelled, rig.run(table_of("unipc-2"), options));
    CHECK(static_cast<cudaStream_t>(rig.device->stream())->queue.empty());
}

// Of each pull the rays' integrals come, before it and after it, for the fit and the report, and of the first D's
// attenuation all, for the residual before data consistency; and nothing waits for more.
void a_pull_brings_rays_to_the_host_and_a_run_one_volume() {
    Rig rig(gpu());
    x2ct::RunOptions options;
    options.correction = consistency(measured({along(1), along(0)}));
    const auto table = table_of("unipc-2");
    rig.run(table, options);
    const auto before = machine();
    const std::int64_t told = rig.device->waits();
    rig.run(table, options);
    const std::size_t rows = static_cast<std::size_t>(table.evaluations()), rays = (8 + 12) * 20;
    const auto voxels = static_cast<std::size_t>(x2ct::volume_of(kShape));
    CHECK(machine().downloaded - before.downloaded == (2 * voxels + rows * 2 * rays) * sizeof(float));
    CHECK(machine().uploaded - before.uploaded < (rows * rays + voxels) * sizeof(float));
    CHECK(machine().allocations == before.allocations);
    CHECK(machine().waits - before.waits == rig.device->waits() - told);
    CHECK(machine().waits - before.waits <= 3 * static_cast<int>(rows) + 3);
}

void results_come_in_one_piece() {
    const auto device = gpu();
    const auto values = numbers(5000003, 1);
    const x2ct::Buffer there = on(device, values);
    values_of(*device, there);
    const auto before = machine();
    CHECK(same(values_of(*device, there), values));
    CHECK(machine().downloads - before.downloads == 1);
    CHECK(machine().waits - before.waits == 1);
    CHECK(machine().pins == before.pins);  // what was pinned for the one before is used again
}

// Else each run with consistency would be another graph to a runtime that goes by addresses, and the next without, too.
void what_a_pull_takes_moves_no_registers() {
    Rig rig(gpu());
    const auto table = table_of("unipc-2");
    for (int turn = 0; turn < 3; ++turn) rig.run(table);
    const int settled = machine().graphs;
    const auto places = rig.network->places;
    for (int turn = 0; turn < 2; ++turn) {
        x2ct::RunOptions options;
        options.correction = consistency(measured({along(1), along(0)}));
        rig.run(table, options);
        options.correction.reset();
        rig.run(table);
    }
    CHECK(machine().graphs == settled);
    CHECK(rig.network->places == places);
}

template <typename Work>
int launches() {
    return machine().ray_kernels[x2ct::RayKernel::Work{Work{}}.index()];
}

// No coordinates go to the GPU, where they are made once, and no features come from it; what comes is HU.
void another_study_brings_its_x_rays_and_nothing_else_to_the_gpu() {
    using x2ct::kernels::Coordinates, x2ct::kernels::ToHu;
    machine().ray_kernels.clear();
    Study study(gpu());
    study.show(1), study.run(), study.show(2), study.run();
    CHECK(launches<Coordinates>() == 1 && launches<ToHu>() == 2);
    const auto before = machine();
    study.show(3);
    CHECK(machine().downloads == before.downloads);
    CHECK(machine().uploads - before.uploads == 3);  // pictures, which of them there are, and where they are
    CHECK(machine().uploaded - before.uploaded == (2 * tiny::kDetector * tiny::kDetector + 2 + 24) * sizeof(float));
    CHECK(machine().allocations == before.allocations);
    CHECK(machine().waits - before.waits <= 1);  // for the first half, which the third takes again
    const auto shown = machine();
    const std::size_t voxels = study.run().size();
    CHECK(machine().downloaded - shown.downloaded == voxels * sizeof(float));
    CHECK(launches<Coordinates>() == 1 && launches<ToHu>() == 3);
}

// Of the emulated runtime itself: what the real one does not allow, it does not allow either.
void recording_is_spoilt_by_what_may_not_be_done() {
    const auto device = gpu();
    auto* const stream = static_cast<cudaStream_t>(device->stream());
    void* memory = nullptr;
    cudaGraph_t graph = nullptr;
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    CHECK(cudaMalloc(&memory, 512) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated && graph == nullptr);
    CHECK(cudaGetLastError() == cudaErrorStreamCaptureInvalidated);
    CHECK(cudaGetLastError() == cudaSuccess);
    cudaEvent_t event = nullptr;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaEventRecord(event, stream);
    CHECK(cudaEventQuery(event) == cudaErrorNotReady);
    CHECK(cudaGetLastError() == cudaErrorNotReady);
    cudaEventSynchronize(event);
    cudaEventDestroy(event);
}

// The CPU's kernels as a device of their own, but for one kind of work, of which a value comes out a little larger.
class Faulty : public Device {
  public:
    explicit Faulty(bool in_rows) : in_rows_(in_rows) {}
    std::string name() const override { return "faulty"; }
    float* allocate(std::size_t count) override { return cpu_->allocate(count); }
    void release(float* memory) noexcept override { cpu_->release(memory); }
    void upload(float* to, const float* from, std::size_t count) override { cpu_->upload(to, from, count); }
    void download(float* to, const float* from, std::size_t count) override { cpu_->download(to, from, count); }
    void copy(const x2ct::BoxCopy& box) override { cpu_->copy(box); }
    void* stream() const override { return const_cast<Faulty*>(this); }  // so that rays are the kernels'
    void run(const RowKernel& kernel) override {
        cpu_->run(kernel);
        if (in_rows_ && kernel.new_y != nullptr) spoil(kernel.new_y[kernel.count - 1]);
    }
    void run(const x2ct::RayKernel& kernel) override {
        cpu_->run(kernel);
        if (const auto* const back = std::get_if<x2ct::kernels::JosephBackward>(&kernel.work); back && !in_rows_) {
            spoil(back->volume[back->count() / 2]);
        }
    }

  private:
    static void spoil(float& value) { value += 1e-3F; }

    std::shared_ptr<Device> cpu_ = cpu();
    bool in_rows_;
};

void the_check_of_a_device_finds_what_computes_something_else() {
    const auto failed = [](const std::shared_ptr<Device>& device) {
        std::set<std::string> names;
        for (const auto& one : x2ct::check_device(device)) {
            if (!one.passed()) names.insert(one.name);
        }
        return names;
    };
    CHECK(x2ct::check_device(cpu()).size() > 10);
    CHECK(failed(cpu()).empty());
    CHECK(failed(gpu()).empty());
    CHECK((failed(std::make_shared<Faulty>(true)) == std::set<std::string>{"noise", "sampling row"}));
    CHECK((failed(std::make_shared<Faulty>(false)) == std::set<std::string>{"consistency, CG", "their transpose"}));
}

void too_little_memory_is_an_error_of_its_own() {
    Rig rig(gpu());
    machine().bytes = machine().taken + 4096;
    CHECK_THROWS(x2ct::OutOfMemory, rig.run(table_of("unipc-2")));
    machine().bytes = std::size_t{1} << 30;
    Rig here(cpu());
    CHECK(same(rig.run(table_of("unipc-2")), here.run(table_of("unipc-2"))));
}

}  // namespace

TESTS(what_is_missing_is_one_line, memory_is_kept_and_given_up_in_need, DEVICE_LAWS, RAY_LAWS, PIPELINE_LAWS,
      results_come_in_one_piece, what_a_pull_takes_moves_no_registers,
      another_study_brings_its_x_rays_and_nothing_else_to_the_gpu, recording_is_spoilt_by_what_may_not_be_done,
      a_pull_brings_rays_to_the_host_and_a_run_one_volume, each_row_is_recorded_once_and_replayed,
      the_whole_loop_is_one_graph, nothing_waits_allocates_or_copies_but_what_says_so,
      two_rows_are_in_flight_and_progress_tells_of_done_ones, a_cancelled_run_leaves_nothing_queued,
      the_check_of_a_device_finds_what_computes_something_else, too_little_memory_is_an_error_of_its_own)
