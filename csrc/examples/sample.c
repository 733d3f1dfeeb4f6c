/* X-rays to a CT volume from C: reads line integrals as raw floats, writes HU as raw floats [x][y][z].
 *
 *   sample_c MODEL.x2ct RUNTIME_DIR FRONTAL.f32 LATERAL.f32 SEED OUT.f32 [SAMPLES [CONSISTENCY]]
 *
 * Of several SAMPLES, OUT is the mean, and OUT.std gets their standard deviation. CONSISTENCY pulls them towards the
 * X-rays: off, last, every, or after evaluations such as 3,5,6.
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

/* What was chosen, and what is slower or less exact than it might be. */
static void log_line(void* user_data, x2ct_log_level level, const char* line) {
    (void)user_data;
    fprintf(stderr, "%s: %s\n", level >= X2CT_LOG_WARNING ? "warning" : "info", line);
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
        x2ct_xray xray = {slot, detector.rows, detector.columns, pixels[slot], NULL, 0, NULL};
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

static int tell_sample(void* user_data, int32_t number, const float* hu, size_t count) {
    (void)user_data;
    fprintf(stderr, "sample %" PRId32 ": %g HU in the middle\n", number, (double)hu[count / 2]);
    return 0;
}

/* How the X-rays and the volume agree, where they were made to. */
static void tell_pull(const x2ct_sampler* sampler) {
    for (int32_t slot = 0; slot < 2; ++slot) {
        x2ct_pull pull;
        if (x2ct_sampler_pull(sampler, slot, &pull) != X2CT_OK) continue;
        fprintf(stderr, "view %" PRId32 ": off by %g before the last pull, %g after\n", slot, pull.rms_before,
                pull.rms_after);
    }
}

/* What is asked for: "out" and, of several samples, "out.std". */
struct job {
    uint64_t seed;
    const char* output;
    int32_t samples;
    const char* consistency;
};

static int write_result(const struct job* job, const float* hu, const float* deviation, size_t count) {
    int code = write_floats(job->output, hu, count);
    if (code != 0 || job->samples == 1) return code;
    char path[4096];
    snprintf(path, sizeof path, "%s.std", job->output);
    return write_floats(path, deviation, count);
}

static int sample(x2ct_sampler* sampler, char* const xrays[2], const struct job* job) {
    int code = set_xrays(sampler, xrays);
    if (code != 0) return code;
    int64_t shape[3];
    x2ct_sampler_grid(sampler, shape, NULL);
    size_t count = (size_t)(shape[0] * shape[1] * shape[2]);
    float* hu = malloc(count * sizeof *hu);
    float* deviation = malloc(count * sizeof *deviation);
    if (hu == NULL || deviation == NULL) {
        free(hu);
        free(deviation);
        return (int)X2CT_OUT_OF_MEMORY;
    }

    x2ct_run_options options;
    x2ct_status status = x2ct_run_options_init(&options, sizeof options, X2CT_ABI);
    if (status == X2CT_OK) {
        options.seed = job->seed;
        options.progress = tell;
        options.samples = job->samples;
        options.each = tell_sample;
        options.deviation = deviation;
        options.consistency = job->consistency;
        status = x2ct_sampler_run(sampler, &options, hu, count);
    }
    code = status == X2CT_OK ? write_result(job, hu, deviation, count) : failed(status);
    if (code == 0) tell_pull(sampler);
    free(hu);
    free(deviation);
    return code;
}

int main(int argc, char** argv) {
    if (argc < 7 || argc > 9) {
        fprintf(
            stderr,
            "usage: sample_c MODEL.x2ct RUNTIME_DIR FRONTAL.f32 LATERAL.f32 SEED OUT.f32 [SAMPLES [CONSISTENCY]]\n");
        return 2;
    }
    struct job job = {strtoull(argv[5], NULL, 10), argv[6], argc > 7 ? (int32_t)strtol(argv[7], NULL, 10) : 1,
                      argc > 8 ? argv[8] : "off"};
    x2ct_sampler_options options;
    x2ct_status status = x2ct_sampler_options_init(&options, sizeof options, X2CT_ABI);
    if (status != X2CT_OK) return failed(status);
    options.bundle = argv[1];
    options.runtime_dir = strcmp(argv[2], "-") == 0 ? NULL : argv[2];
    options.precision = "f32";
    options.log = log_line;

    x2ct_sampler* sampler;
    status = x2ct_sampler_open(&options, &sampler);
    if (status != X2CT_OK) return failed(status);
    fprintf(stderr, "x2ct %s, %s\n", x2ct_version(), x2ct_sampler_precision(sampler));
    int code = sample(sampler, argv + 3, &job);
    x2ct_sampler_close(sampler);
    return code;
}
