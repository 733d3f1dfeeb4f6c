/* x2ct from C, and from whatever speaks C: X-rays in, a CT volume out. csrc/examples/sample.c uses all of it.
 *
 * - A function that can fail returns an x2ct_status; x2ct_last_error() then says in one line what was wrong.
 * - Every options struct is filled by its init function, which also checks that header and library fit together.
 * - A handle may be used from any thread, by one at a time; two handles don't disturb each other.
 * - No function throws, prints or exits. Texts are UTF-8, lengths mm, volumes float32 HU [x][y][z], z fastest.
 */
#ifndef X2CT_X2CT_H
#define X2CT_X2CT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define X2CT_API __attribute__((visibility("default")))

/* Grows when what is here changes in a way that an older program can't be run with. Fields that are added to the end
 * of an options struct don't count: an older program's structs are shorter, and what they lack is the default. */
#define X2CT_ABI 2u

typedef enum x2ct_status {
    X2CT_OK = 0,
    X2CT_FAILED = 1,          /* while running */
    X2CT_BAD_INPUT = 2,       /* wrong use, or bad input */
    X2CT_MISSING_RUNTIME = 3, /* a runtime, device or precision that can't be had */
    X2CT_OUT_OF_MEMORY = 4,
    X2CT_CANCELLED = 130
} x2ct_status;

X2CT_API const char* x2ct_version(void); /* "0.1.0" */
X2CT_API uint32_t x2ct_abi(void);        /* the X2CT_ABI that the library was built with */
X2CT_API const char* x2ct_status_text(x2ct_status status);

/* What the latest failure in the calling thread was; good until the thread's next call. "" if there was none. */
X2CT_API const char* x2ct_last_error(void);

/* ------------------------------------------------------------------------------------------------ views */

/* A detector: pixels, their pitch on it, and the point in patient mm that its middle sees. Fixed in this ABI. */
typedef struct x2ct_detector {
    int64_t rows, columns;
    double row_mm, column_mm;
    double isocentre_mm[3];
} x2ct_detector;

/* The 3x4 row-major matrix from patient mm (x right, y front, z head) to pixels of a view whose source is at angle_deg
 * about z: 0 in front of the patient (AP), 90 at the patient's right (lateral), 180 behind (PA). */
X2CT_API x2ct_status x2ct_parallel_view(double angle_deg, const x2ct_detector* detector, double matrix[12]);
X2CT_API x2ct_status x2ct_cone_view(double angle_deg, double sod_mm, double sdd_mm, const x2ct_detector* detector,
                                    double matrix[12]);

/* ------------------------------------------------------------------------------------------------ what there is */

/* Called with each name, and with why it can't be used here, or "" if it can; both good during the call. */
typedef void (*x2ct_named)(void* user_data, const char* name, const char* reason);

X2CT_API x2ct_status x2ct_list_solvers(x2ct_named call, void* user_data);
X2CT_API x2ct_status x2ct_list_schedules(x2ct_named call, void* user_data);
/* library_dir as in x2ct_sampler_options. Runtimes are looked for wherever the system's loader looks. */
X2CT_API x2ct_status x2ct_list_backends(const char* library_dir, x2ct_named call, void* user_data);
X2CT_API x2ct_status x2ct_list_devices(const char* library_dir, x2ct_named call, void* user_data); /* "cpu", "cuda:0" */

/* ------------------------------------------------------------------------------------------------ models */

/* Opens a bundle and checks the whole of it, without loading anything. */
X2CT_API x2ct_status x2ct_check_bundle(const char* bundle);

typedef enum x2ct_log_level {
    X2CT_LOG_INFO = 20,   /* what was chosen: backend, device, precision, runtime, engines, shapes, solver, schedule */
    X2CT_LOG_WARNING = 30 /* what costs time or exactness: a thin halo, too little memory to keep things */
} x2ct_log_level;

/* Called with one line of a sampler's, good during the call, in the thread that opens or uses that sampler; it must not
 * use the sampler, and must not throw. Lines hold no patients' data; their wording may change. Failures are statuses,
 * and not logged. */
typedef void (*x2ct_log)(void* user_data, x2ct_log_level level, const char* line);

typedef struct x2ct_sampler_options {
    size_t struct_size;      /* set by init */
    const char* bundle;      /* the model's folder; required */
    const char* backend;     /* "auto", "openvino", "onnxruntime", "tensorrt" or "torch"; see engines */
    const char* device;      /* "auto" (which is "cpu"), "cpu", "cuda" or "cuda:N" */
    const char* precision;   /* "auto", "f32", "tf32", "bf16", "f16" or "int8": of the denoiser */
    int32_t threads;         /* 0 leaves it to the runtime */
    const char* library_dir; /* where the backends' libraries are; NULL: the folder x2ct beside this library */
    const char* runtime_dir; /* where the runtime is installed; NULL: wherever the system's loader looks */
    int64_t shape[3];        /* voxels to fill, multiples of the model's stride; zeros: the model's own */
    double voxel_mm[3];      /* zeros: the model's own */
    int64_t memory;          /* bytes that the process may take; 0: what the machine has free. Where the whole volume
                                does not fit, it is denoised in tiles */
    int64_t halo;            /* how far tiles reach, in voxels; below 0: as far as the network looks, with which they
                                give what the whole gives, to rounding */
    const char* provider; /* ONNX Runtime's execution provider, "cpu", "cuda" or "tensorrt"; of torch "torchscript" or
                             "aoti"; NULL or "": the device's own, or what there is */
    const char* engines;  /* a folder of compiled engines, as x2ct build -o and x2ct export --compiled write them:
                             required by tensorrt and torch, and by onnxruntime in bf16 and f16; else NULL */
    int32_t trust;        /* not 0: run what is in it. It is code, and does what its maker wants */
    x2ct_log log;         /* NULL: nothing is logged */
    void* log_user_data;  /* handed to log */
} x2ct_sampler_options;

/* x2ct_sampler_options_init(&options, sizeof options, X2CT_ABI) */
X2CT_API x2ct_status x2ct_sampler_options_init(x2ct_sampler_options* options, size_t struct_size, uint32_t abi);

/* Whether a backend can be opened; if not, x2ct_last_error() says what to install. Folders as in the options. */
X2CT_API x2ct_status x2ct_check_backend(const char* backend, const char* library_dir, const char* runtime_dir);

typedef struct x2ct_sampler x2ct_sampler;

/* Checks the bundle and compiles its networks. On failure *sampler is NULL. */
X2CT_API x2ct_status x2ct_sampler_open(const x2ct_sampler_options* options, x2ct_sampler** sampler);
X2CT_API void x2ct_sampler_close(x2ct_sampler* sampler); /* NULL is fine; no run may be going on */

/* The volumes that it makes: voxels and their pitch along x, y, z. Their patient mm have the origin in the middle. */
X2CT_API x2ct_status x2ct_sampler_grid(const x2ct_sampler* sampler, int64_t shape[3], double spacing_mm[3]);
/* How the network goes over the grid: voxels a tile, halo included, and tiles along x, y, z; 1, 1, 1 is the whole.
 * Where memory is counted, a run that keeps more volumes than the one before may change it. */
X2CT_API x2ct_status x2ct_sampler_tiles(const x2ct_sampler* sampler, int64_t tile[3], int64_t count[3]);
/* How many views it takes, and the picture that it takes in each where no matrix is given. */
X2CT_API x2ct_status x2ct_sampler_views(const x2ct_sampler* sampler, int32_t* count);
X2CT_API x2ct_status x2ct_sampler_view(const x2ct_sampler* sampler, int32_t slot, x2ct_detector* detector,
                                       double matrix[12]);
/* "f32", "bf16"...: what the denoiser computes in, read back from the compiled network. NULL for a NULL handle. */
X2CT_API const char* x2ct_sampler_precision(const x2ct_sampler* sampler);

/* ------------------------------------------------------------------------------------------------ sampling */

/* One X-ray: line integrals of attenuation, row 0 at the head, column 0 at the patient's right, in a lateral at the
 * front. Fixed in this ABI. */
typedef struct x2ct_xray {
    int32_t slot; /* 0 frontal, 1 lateral */
    int64_t rows, columns;
    const float* line_integrals; /* [rows][columns], copied */
    const double* matrix;        /* 3x4, patient mm to its pixels; NULL: the picture is the model's own view */
    int32_t uncalibrated;        /* not 0: known up to a scale and an offset only, which consistency fits */
    const uint8_t* measured;     /* [rows][columns], 0 in padding and behind shutters; NULL: all of it; copied */
} x2ct_xray;

/* What the volumes of the following runs are conditioned on. One view is enough. */
X2CT_API x2ct_status x2ct_sampler_set_xrays(x2ct_sampler* sampler, const x2ct_xray* xrays, size_t count);

/* Ends a run from another thread or a signal handler: before the next evaluation, and at once for a run that starts
 * later. A token serves one run, or several that are to end together. */
typedef struct x2ct_cancel x2ct_cancel;
X2CT_API x2ct_cancel* x2ct_cancel_create(void); /* NULL when out of memory */
X2CT_API void x2ct_cancel_now(x2ct_cancel* token);
X2CT_API void x2ct_cancel_free(x2ct_cancel* token);

/* Called in the thread that runs, after each evaluation. Not 0 ends the run with X2CT_CANCELLED. Must not throw. */
typedef int (*x2ct_progress)(void* user_data, int32_t step, int32_t total, double sigma);
/* Each of several samples, from 0, good during the call; the same holds. */
typedef int (*x2ct_each)(void* user_data, int32_t sample, const float* hu, size_t count);
/* The same with what the network makes of the volume by then, good during the call. */
typedef int (*x2ct_preview)(void* user_data, int32_t step, int32_t total, double sigma, const float* hu, size_t count);

typedef struct x2ct_run_options {
    size_t struct_size; /* set by init */
    uint64_t seed;      /* of the noise; the same seed gives the same bits */
    uint32_t sample;    /* another number is another noise of the same seed */
    int32_t steps;      /* along the noise schedule; 0: the model's */
    const char* solver; /* "euler", "heun", "dpmpp-2m"...; NULL: the model's */
    const char*
        schedule; /* "tuned", "edm", "log-snr"...; NULL: the model's tuned one for the steps, or its usual one */
    int32_t mean; /* not 0: the posterior mean in one or two evaluations, in place of a sample */
    x2ct_progress progress;
    x2ct_preview preview;
    int32_t preview_every; /* evaluations; 1 or more */
    void* user_data;       /* handed to the callbacks */
    const x2ct_cancel* cancel;
    const char* consistency; /* pull towards the X-rays: "off", "last", "every", or after evaluations, "3,5,6" */
    double gamma;            /* how strongly; init sets the usual strength */
    int32_t samples;         /* from number `sample` on; several give their mean. Progress is of all together */
    x2ct_each each;
    float* deviation;     /* the samples' standard deviation in HU, times the model's deviation_scale where it has one
                             for these settings; as many floats as the volume; NULL: not wanted */
    double churn;         /* noise that "heun" adds again on the way, S_churn of Karras et al. 2022; 0: none */
    const double* sigmas; /* falling noise levels in place of a schedule, the final 0 left out; NULL: none. Copied */
    size_t sigma_count;
    int32_t raw; /* not 0: volumes in the network's unit, in place of HU */
} x2ct_run_options;

/* x2ct_run_options_init(&options, sizeof options, X2CT_ABI) */
X2CT_API x2ct_status x2ct_run_options_init(x2ct_run_options* options, size_t struct_size, uint32_t abi);

/* One volume, or the mean of several, into hu, `count` floats, which must be the grid's. NULL options are the defaults.
 * After a failure the sampler can be used again, and what hu holds is undefined. */
X2CT_API x2ct_status x2ct_sampler_run(x2ct_sampler* sampler, const x2ct_run_options* options, float* hu, size_t count);

/* What consistency made of one X-ray in the latest run. Fixed in this ABI. */
typedef struct x2ct_pull {
    double rays;                  /* the share that counts of those that meet the body and the grid */
    double scale, offset;         /* y = scale A(D) + offset, fitted where the X-ray is not calibrated; else 1 and 0 */
    double rms_before, rms_after; /* of what y and A(D) differ by along them, a line integral, in the last pull */
} x2ct_pull;

/* X2CT_BAD_INPUT where consistency was off or the slot had no X-ray. */
X2CT_API x2ct_status x2ct_sampler_pull(const x2ct_sampler* sampler, int32_t slot, x2ct_pull* pull);

#ifdef __cplusplus
}
#endif

#endif
