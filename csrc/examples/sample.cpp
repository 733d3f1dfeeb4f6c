// X-rays to a CT volume from C++: reads line integrals as raw floats, writes HU as raw floats [x][y][z].
//
//   sample_cpp MODEL.x2ct RUNTIME_DIR ROWS COLUMNS PITCH_MM FRONTAL.f32 LATERAL.f32 SEED OUT.f32 [X Y Z MEMORY_MIB]
//
// The X-rays are from parallel beams, AP and from the patient's right, with a detector of ROWS x COLUMNS pixels of
// PITCH_MM. RUNTIME_DIR is the folder of the installed OpenVINO (pip's package folder will do). X Y Z are the voxels to
// fill, of the model's own size; they are denoised in tiles where MEMORY_MIB asks for it.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include <x2ct/error.h>
#include <x2ct/pipeline.h>

namespace {

std::vector<float> read_floats(const std::string& path, std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    const auto bytes = static_cast<std::streamsize>(values.size() * sizeof(float));
    std::ifstream file(path, std::ios::binary);
    if (!file.read(reinterpret_cast<char*>(values.data()), bytes)) {
        throw x2ct::InputError(path + ": file: found too little, expected " + std::to_string(bytes) + " bytes");
    }
    return values;
}

void sample(char** argument, bool has_grid) {
    x2ct::Backend& openvino = x2ct::open_backend("openvino", {BACKENDS, argument[2]});
    x2ct::PipelineOptions wanted;
    wanted.precision = "f32";
    if (has_grid) {
        wanted.shape = {std::atoll(argument[10]), std::atoll(argument[11]), std::atoll(argument[12])};
        wanted.memory = std::atoll(argument[13]) << 20;
    }
    x2ct::Pipeline pipeline(x2ct::open_bundle(argument[1]), openvino, wanted);
    const auto tiles = pipeline.plan().denoiser.count();
    std::fprintf(stderr, "tiles: %d x %d x %d\n", static_cast<int>(tiles[0]), static_cast<int>(tiles[1]),
                 static_cast<int>(tiles[2]));

    const x2ct::Detector detector{.rows = std::atoll(argument[3]),
                                  .columns = std::atoll(argument[4]),
                                  .row_mm = std::atof(argument[5]),
                                  .column_mm = std::atof(argument[5])};
    const auto frontal = read_floats(argument[6], detector.rows * detector.columns);
    const auto lateral = read_floats(argument[7], detector.rows * detector.columns);
    const x2ct::XRay xrays[] = {{.slot = 0,
                                 .line_integrals = frontal.data(),
                                 .rows = detector.rows,
                                 .columns = detector.columns,
                                 .matrix = x2ct::parallel_view("ap", 0, detector).matrix},
                                {.slot = 1,
                                 .line_integrals = lateral.data(),
                                 .rows = detector.rows,
                                 .columns = detector.columns,
                                 .matrix = x2ct::parallel_view("lateral", 90, detector).matrix}};
    pipeline.set_xrays(xrays);

    x2ct::SampleOptions options;
    options.seed = std::strtoull(argument[8], nullptr, 10);
    options.progress = [](const x2ct::Progress& now) { std::fprintf(stderr, "%d/%d\n", now.step, now.total); };
    std::vector<float> hu(static_cast<std::size_t>(pipeline.voxels()));
    pipeline.run(options, hu.data());

    std::ofstream file(argument[9], std::ios::binary);
    file.write(reinterpret_cast<const char*>(hu.data()), static_cast<std::streamsize>(hu.size() * sizeof(float)));
    if (!file.flush()) throw x2ct::Error(std::string(argument[9]) + ": output: not written");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 10 && argc != 14) {
        std::fprintf(stderr,
                     "usage: sample_cpp MODEL.x2ct RUNTIME_DIR ROWS COLUMNS PITCH_MM FRONTAL LATERAL SEED OUT "
                     "[X Y Z MEMORY_MIB]\n");
        return 2;
    }
    try {
        sample(argv, argc == 14);
        return 0;
    } catch (const x2ct::Error& error) {
        std::fprintf(stderr, "sample_cpp: %s\n", error.what());
        return error.exit_code();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "sample_cpp: %s\n", error.what());
        return 1;
    }
}
