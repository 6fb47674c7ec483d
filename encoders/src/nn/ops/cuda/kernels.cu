// Kernels that candle lacks on NVIDIA GPUs, or composes of passes that are far slower. All values are
// f32 and row-major; counts fit 32 bits. No result depends on the order in which blocks run, but for
// `scatter_rows`.

#define EACH(i, n) \
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += gridDim.x * blockDim.x)

// Columns and rows of a block of the column sums.
#define COLUMNS 32
#define ROWS 8

// Patches of channels-last pictures: [n, h, w, c] to [n, out_h, out_w, k, k, c].
extern "C" __global__ void unfold(const float *x, float *out, unsigned n, unsigned h, unsigned w,
                                  unsigned c, unsigned out_h, unsigned out_w, unsigned k,
                                  unsigned stride) {
    EACH(i, n) {
        unsigned r = i / c, channel = i - r * c;
        unsigned kx = r % k;
        r /= k;
        unsigned ky = r % k;
        r /= k;
        unsigned ox = r % out_w;
        r /= out_w;
        unsigned oy = r % out_h, picture = r / out_h;
        // Left of or above the picture these wrap around, beyond every side.
        unsigned y = oy * stride + ky - k / 2, x_ = ox * stride + kx - k / 2;
        out[i] = y < h && x_ < w ? x[((picture * h + y) * w + x_) * c + channel] : 0.0f;
    }
}

// Adds patches back to where they came from.
extern "C" __global__ void fold(const float *g, float *out, unsigned n, unsigned h, unsigned w,
                                unsigned c, unsigned out_h, unsigned out_w, unsigned k,
                                unsigned stride) {
    EACH(i, n) {
        unsigned r = i / c, channel = i - r * c;
        unsigned x = r % w;
        r /= w;
        unsigned y = r % h, picture = r / h;
        float sum = 0.0f;
        for (unsigned ky = 0; ky < k; ky++) {
            unsigned up = y + k / 2 - ky;
            if (up % stride != 0 || up / stride >= out_h) continue;
            for (unsigned kx = 0; kx < k; kx++) {
                unsigned left = x + k / 2 - kx;
                if (left % stride != 0 || left / stride >= out_w) continue;
                unsigned patch = (picture * out_h + up / stride) * out_w + left / stride;
                sum += g[((patch * k + ky) * k + kx) * c + channel];
            }
        }
        out[i] = sum;
    }
}

// Sums of two terms over the rows of one block of rows: out [blocks, 2, c].
#define COLUMN_SUMS(FIRST, SECOND)                                                             \
    __shared__ float sums[2][ROWS][COLUMNS];                                                   \
    unsigned column = blockIdx.x * COLUMNS + threadIdx.x;                                      \
    float first = 0.0f, second = 0.0f;                                                         \
    if (column < c)                                                                            \
        for (unsigned row = blockIdx.y * ROWS + threadIdx.y; row < rows; row += gridDim.y * ROWS) { \
            unsigned at = row * c + column;                                                    \
            first += FIRST;                                                                    \
            second += SECOND;                                                                  \
        }                                                                                      \
    sums[0][threadIdx.y][threadIdx.x] = first;                                                 \
    sums[1][threadIdx.y][threadIdx.x] = second;                                                \
    __syncthreads();                                                                           \
    if (threadIdx.y == 0 && column < c) {                                                      \
        for (unsigned i = 1; i < ROWS; i++) {                                                  \
            first += sums[0][i][threadIdx.x];                                                  \
            second += sums[1][i][threadIdx.x];                                                 \
        }                                                                                      \
        out[blockIdx.y * 2 * c + column] = first;                                              \
        out[blockIdx.y * 2 * c + c + column] = second;                                         \
    }

// Of x and of its square, less the first row, so that a large mean does not cancel.
extern "C" __global__ void moment_sums(const float *x, float *out, unsigned rows, unsigned c) {
    COLUMN_SUMS(x[at] - x[column], (x[at] - x[column]) * (x[at] - x[column]))
}

// Of the gradient alone.
extern "C" __global__ void gradient_sums(const float *g, float *out, unsigned rows, unsigned c) {
    COLUMN_SUMS(g[at], 0.0f)
}

// Of the gradient, and of it times the input as normalized per column: by [mean, inverse] [2, c].
extern "C" __global__ void batch_norm_sums(const float *x, const float *g, const float *by, float *out,
                                           unsigned rows, unsigned c) {
    COLUMN_SUMS(g[at], g[at] * (x[at] - by[column]) * by[c + column])
}

// The same, normalized per row: by [rows, 2].
extern "C" __global__ void layer_norm_sums(const float *x, const float *g, const float *by, float *out,
                                           unsigned rows, unsigned c) {
    COLUMN_SUMS(g[at], g[at] * (x[at] - by[2 * row]) * by[2 * row + 1])
}

// Sums over the first axis of [blocks, n].
extern "C" __global__ void sum_blocks(const float *x, float *out, unsigned n, unsigned blocks) {
    EACH(i, n) {
        float sum = 0.0f;
        for (unsigned block = 0; block < blocks; block++) sum += x[block * n + i];
        out[i] = sum;
    }
}

// (x - mean) * scale + beta per column: by [3, c].
extern "C" __global__ void batch_norm(const float *x, const float *by, float *out, unsigned n, unsigned c,
                                      unsigned relu) {
    EACH(i, n) {
        unsigned column = i % c;
        float y = (x[i] - by[column]) * by[c + column] + by[2 * c + column];
        out[i] = relu ? fmaxf(y, 0.0f) : y;
    }
}

// by [5, c]: mean, inverse deviation, gamma, mean of g, mean of g times the normalized input.
extern "C" __global__ void batch_norm_back(const float *x, const float *g, const float *by, float *out,
                                           unsigned n, unsigned c) {
    EACH(i, n) {
        unsigned column = i % c;
        float inverse = by[c + column], normal = (x[i] - by[column]) * inverse;
        out[i] = by[2 * c + column] * inverse * (g[i] - by[3 * c + column] - normal * by[4 * c + column]);
    }
}

__device__ float over_warp(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffff, x, offset);
    return x;
}

// Mean and inverse deviation of each row, a warp each: out [rows, 2].
extern "C" __global__ void row_moments(const float *x, float *out, unsigned rows, unsigned c, float eps) {
    unsigned row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    x += row * c;
    float sum = 0.0f, square = 0.0f;
    for (unsigned i = lane; i < c; i += 32) sum += x[i];
    float mean = over_warp(sum) / c;
    for (unsigned i = lane; i < c; i += 32) square += (x[i] - mean) * (x[i] - mean);
    float variance = over_warp(square) / c;
    if (lane == 0) {
        out[2 * row] = mean;
        out[2 * row + 1] = 1.0f / sqrtf(variance + eps);
    }
}

// by [2, c]: gamma and beta.
extern "C" __global__ void layer_norm(const float *x, const float *moments, const float *by, float *out,
                                      unsigned n, unsigned c) {
    EACH(i, n) {
        unsigned row = i / c, column = i - row * c;
        out[i] = (x[i] - moments[2 * row]) * moments[2 * row + 1] * by[column] + by[c + column];
    }
}

extern "C" __global__ void layer_norm_back(const float *x, const float *g, const float *gamma, float *out,
                                           unsigned rows, unsigned c, float eps) {
    unsigned row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    x += row * c;
    g += row * c;
    out += row * c;
    float sum = 0.0f, square = 0.0f;
    for (unsigned i = lane; i < c; i += 32) sum += x[i];
    float mean = over_warp(sum) / c;
    for (unsigned i = lane; i < c; i += 32) square += (x[i] - mean) * (x[i] - mean);
    float inverse = 1.0f / sqrtf(over_warp(square) / c + eps);
    float of_g = 0.0f, of_gx = 0.0f;
    for (unsigned i = lane; i < c; i += 32) {
        of_g += g[i] * gamma[i];
        of_gx += g[i] * gamma[i] * (x[i] - mean) * inverse;
    }
    of_g = over_warp(of_g) / c;
    of_gx = over_warp(of_gx) / c;
    for (unsigned i = lane; i < c; i += 32)
        out[i] = inverse * (g[i] * gamma[i] - of_g - (x[i] - mean) * inverse * of_gx);
}

extern "C" __global__ void add_relu(const float *a, const float *b, float *out, unsigned n) {
    EACH(i, n) out[i] = fmaxf(a[i] + b[i], 0.0f);
}

// The gradient where the output of a rectifier is positive.
extern "C" __global__ void relu_back(const float *y, const float *g, float *out, unsigned n) {
    EACH(i, n) out[i] = y[i] > 0.0f ? g[i] : 0.0f;
}

extern "C" __global__ void quick_gelu(const float *x, float *out, unsigned n, float slope) {
    EACH(i, n) out[i] = x[i] / (1.0f + expf(-slope * x[i]));
}

extern "C" __global__ void quick_gelu_back(const float *x, const float *g, float *out, unsigned n,
                                           float slope) {
    EACH(i, n) {
        float s = 1.0f / (1.0f + expf(-slope * x[i]));
        out[i] = g[i] * s * (1.0f + slope * x[i] * (1.0f - s));
    }
}

extern "C" __global__ void add_bias(const float *x, const float *bias, float *out, unsigned n, unsigned c) {
    EACH(i, n) out[i] = x[i] + bias[i % c];
}

// Rows of a table [.., c] by their numbers, which come as floats: exact up to 2^24.
extern "C" __global__ void gather_rows(const float *table, const float *ids, float *out, unsigned n,
                                       unsigned c) {
    EACH(i, n) {
        unsigned row = i / c;
        out[i] = table[(unsigned)ids[row] * c + (i - row * c)];
    }
}

// Adds rows [n, c] to a table of zeros, in whatever order.
extern "C" __global__ void scatter_rows(const float *g, const float *ids, float *out, unsigned n,
                                        unsigned c) {
    EACH(i, n) {
        unsigned row = i / c;
        atomicAdd(out + (unsigned)ids[row] * c + (i - row * c), g[i]);
    }
}
