/* X-rays to a CT volume from C: reads line integrals as raw floats, writes HU as raw floats [x][y][z].
 *
 *   sample_c MODEL.x2ct RUNTIME_DIR FRONTAL.f32 LATERAL.f32 SEED OUT.f32
 *
 * The X-rays are pictures of the model's own views, pixel for pixel; "-" leaves one out. RUNTIME_DIR is the folder of
 * the installed OpenVINO (pip's package folder will do), or "-" for wherever the system's loader looks. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <x2ct/x2ct.h>

/* What went wrong, on stderr; returns the exit code. */
static int failed(x2ct_status status) {
    fprintf(stderr, "sample_c: %s: %s\n", x2ct_status_text(status), x2ct_last_error());
    return (int)status;
}

static float* read_floats(const char* path, size_t count) {
    FILE* file = fopen(path, "rb");
    float* values = malloc(count * sizeof *values);
    size_t got = file && values ? fread(values, sizeof *values, count, file) : 0;
    if (file) fclose(file);
    if (got == count) return values;
    fprintf(stderr, "sample_c: %s: found fewer than %zu floats\n", path, count);
    free(values);
    return NULL;
}

static int write_floats(const char* path, const float* values, size_t count) {
    FILE* file = fopen(path, "wb");
    size_t put = file ? fwrite(values, sizeof *values, count, file) : 0;
    if (file && fclose(file) == 0 && put == count) return 0;
    fprintf(stderr, "sample_c: %s: not written\n", path);
    return 1;
}

static int tell(void* user_data, int32_t step, int32_t total, double sigma) {
    (void)user_data;
    fprintf(stderr, "%" PRId32 "/%" PRId32 " sigma %g\n", step, total, sigma);
    return 0; /* anything else ends the run */
}

/* The X-rays that were given; returns 0, or an exit code. */
static int set_xrays(x2ct_sampler* sampler, char* const paths[2]) {
    x2ct_xray xrays[2];
    float* pixels[2] = {NULL, NULL};
    size_t count = 0;
    int code = 0;
    for (int32_t slot = 0; slot < 2 && code == 0; ++slot) {
        if (strcmp(paths[slot], "-") == 0) continue;
        x2ct_detector detector;
        x2ct_status status = x2ct_sampler_view(sampler, slot, &detector, NULL);
        if (status != X2CT_OK) {
            code = failed(status);
            break;
        }
        pixels[slot] = read_floats(paths[slot], (size_t)(detector.rows * detector.columns));
        if (pixels[slot] == NULL) code = 2;
        x2ct_xray xray = {slot, detector.rows, detector.columns, pixels[slot], NULL};
        xrays[count++] = xray;
    }
    if (code == 0) {
        x2ct_status status = x2ct_sampler_set_xrays(sampler, xrays, count);
        if (status != X2CT_OK) code = failed(status);
    }
    free(pixels[0]);
    free(pixels[1]);
    return code;
}

static int sample(x2ct_sampler* sampler, char* const xrays[2], uint64_t seed, const char* output) {
    int code = set_xrays(sampler, xrays);
    if (code != 0) return code;
    int64_t shape[3];
    x2ct_sampler_grid(sampler, shape, NULL);
    size_t count = (size_t)(shape[0] * shape[1] * shape[2]);
    float* hu = malloc(count * sizeof *hu);
    if (hu == NULL) return (int)X2CT_OUT_OF_MEMORY;

    x2ct_run_options options;
    x2ct_status status = x2ct_run_options_init(&options, sizeof options, X2CT_ABI);
    if (status == X2CT_OK) {
        options.seed = seed;
        options.progress = tell;
        status = x2ct_sampler_run(sampler, &options, hu, count);
    }
    code = status == X2CT_OK ? write_floats(output, hu, count) : failed(status);
    free(hu);
    return code;
}

int main(int argc, char** argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: sample_c MODEL.x2ct RUNTIME_DIR FRONTAL.f32 LATERAL.f32 SEED OUT.f32\n");
        return 2;
    }
    x2ct_sampler_options options;
    x2ct_status status = x2ct_sampler_options_init(&options, sizeof options, X2CT_ABI);
    if (status != X2CT_OK) return failed(status);
    options.bundle = argv[1];
    options.runtime_dir = strcmp(argv[2], "-") == 0 ? NULL : argv[2];
    options.precision = "f32";

    x2ct_sampler* sampler;
    status = x2ct_sampler_open(&options, &sampler);
    if (status != X2CT_OK) return failed(status);
    fprintf(stderr, "x2ct %s, %s\n", x2ct_version(), x2ct_sampler_precision(sampler));
    int code = sample(sampler, argv + 3, strtoull(argv[5], NULL, 10), argv[6]);
    x2ct_sampler_close(sampler);
    return code;
}
