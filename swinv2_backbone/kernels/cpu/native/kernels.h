// The kernels for vectors of W floats, included once for each instruction set; see native.cpp.
//
// Legend: n tokens of a tile; nH heads of D channels; C = nH * D; N tokens of a clipped window, Np
// the same rounded up to whole pairs of vectors; R rows that are computed together; V = D / W.

typedef float Vector __attribute__((vector_size(W * sizeof(float)), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(W * sizeof(float)), aligned(4)));

constexpr int V = D / W;
constexpr int R = W == 16 ? 8 : 6;
constexpr int SPAN = 64;

static inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
static inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }
static inline Vector all(float value) { return value - Vector{}; }
static inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }

// Reductions of all elements, by halves.
static inline float sum_of_eight(Eight value) {
  Four half = __builtin_shufflevector(value, value, 0, 1, 2, 3) +
              __builtin_shufflevector(value, value, 4, 5, 6, 7);
  return (half[0] + half[2]) + (half[1] + half[3]);
}

static inline float largest_of_eight(Eight value) {
  Four one = __builtin_shufflevector(value, value, 0, 1, 2, 3);
  Four two = __builtin_shufflevector(value, value, 4, 5, 6, 7);
  Four half = one > two ? one : two;
  float even = half[0] > half[2] ? half[0] : half[2], odd = half[1] > half[3] ? half[1] : half[3];
  return even > odd ? even : odd;
}

#if W == 16
static inline Eight lower(Vector value) {
  return __builtin_shufflevector(value, value, 0, 1, 2, 3, 4, 5, 6, 7);
}
static inline Eight upper(Vector value) {
  return __builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15);
}
static inline float sum(Vector value) { return sum_of_eight(lower(value) + upper(value)); }
static inline float largest(Vector value) {
  return largest_of_eight(lower(value) > upper(value) ? lower(value) : upper(value));
}
#else
static inline float sum(Vector value) { return sum_of_eight(value); }
static inline float largest(Vector value) { return largest_of_eight(value); }
#endif

// exp for x <= 88, with a relative error of about 1e-7 (the polynomial is that of Cephes' expf); 0 for
// x < -87, NaN for NaN.
static inline Vector exponential(Vector x) {
  const Vector low = all(-87.0f);
  Integers tiny = x < low, undefined = x != x;
  x = larger(x, low);
  Vector shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the integer is in the low bits
  Vector whole = shifted - 12582912.0f;
  Vector rest = x - whole * 0.693359375f;
  rest = rest + whole * 2.12194440e-4f;
  Vector found = all(1.9875691500e-4f);
  found = found * rest + 1.3981999507e-3f;
  found = found * rest + 8.3334519073e-3f;
  found = found * rest + 4.1665795894e-2f;
  found = found * rest + 1.6666665459e-1f;
  found = found * rest + 5.0000001201e-1f;
  found = found * (rest * rest) + rest + 1.0f;
  Integers bits = (Integers)shifted << 23;
  Integers result = (Integers)found + bits;
  return (Vector)((result & ~tiny) | undefined);  // NaN is all ones
}

// The standard normal distribution: its function and density.
struct Normal {
  Vector function, density;
};

static inline Normal normal(Vector x) {
  Vector size = x < 0.0f ? -x : x;
  Vector fallen = exponential(x * x * -0.5f);
  Vector t = 1.0f / (1.0f + size * (ERFCX_RATE * 0.70710678f));
  Vector tail = all(ERFCX[8]);
  for (int i = 7; i >= 0; --i) tail = tail * t + ERFCX[i];
  tail = tail * t * fallen * 0.5f;
  return {x < 0.0f ? tail : 1.0f - tail, fallen * 0.39894228f};
}

// ---- Products of R rows

// out (R, Np) = a (R, D) times b (D, Np).
static inline void times_transposed(const float* a, const float* b, float* out, int padded) {
  for (int column = 0; column < padded; column += 2 * W) {
    Vector sums[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = Vector{};
    for (int c = 0; c < D; ++c) {
      Vector left = load(b + c * padded + column), right = load(b + c * padded + column + W);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        Vector factor = all(a[r * D + c]);
        sums[r][0] += factor * left;
        sums[r][1] += factor * right;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      store(out + r * padded + column, sums[r][0]);
      store(out + r * padded + column + W, sums[r][1]);
    }
  }
}

// out (R, D) = a (R, Np) times b (tokens, D).  Sums of SPAN tokens are added to the result: a single
// sum over a thousand tokens would be several times less exact.
static inline void times(const float* a, const float* b, float* out, int tokens, int padded) {
  for (int i = 0; i < R * D; ++i) out[i] = 0;
  for (int start = 0; start < tokens; start += SPAN) {
    int end = start + SPAN < tokens ? start + SPAN : tokens;
    for (int half = 0; half < V; half += 2) {
      Vector sums[R][2];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = Vector{};
      for (int j = start; j < end; ++j) {
        Vector left = load(b + j * D + half * W), right = load(b + j * D + half * W + W);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          Vector factor = all(a[r * padded + j]);
          sums[r][0] += factor * left;
          sums[r][1] += factor * right;
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        float* place = out + r * D + half * W;
        store(place, load(place) + sums[r][0]);
        store(place + W, load(place + W) + sums[r][1]);
      }
    }
  }
}

// out (tokens, D) += the transpose of a (R, Np) times b (R, D).
static inline void add_outer(const float* a, const float* b, float* out, int tokens, int padded) {
  for (int half = 0; half < V; half += 2) {
    Vector rows[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      rows[r][0] = load(b + r * D + half * W);
      rows[r][1] = load(b + r * D + half * W + W);
    }
    for (int j = 0; j < tokens; ++j) {
      float* place = out + j * D + half * W;
      Vector left = load(place), right = load(place + W);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        Vector factor = all(a[r * padded + j]);
        left += factor * rows[r][0];
        right += factor * rows[r][1];
      }
      store(place, left);
      store(place + W, right);
    }
  }
}

// to (D, padded) = the transpose of from (tokens, D); the columns behind are not written.
static void transpose(const float* from, float* to, int tokens, int padded) {
  int whole = tokens & ~7;
  for (int j = 0; j < whole; j += 8) {
    for (int c = 0; c < D; c += 8) {
      Eight a[8], b[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) a[i] = *reinterpret_cast<const Eight*>(from + (j + i) * D + c);
#pragma GCC unroll 4
      for (int i = 0; i < 8; i += 2) {
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
      }
#pragma GCC unroll 2
      for (int i = 0; i < 8; i += 4) {
        a[i] = __builtin_shufflevector(b[i], b[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        a[i + 1] = __builtin_shufflevector(b[i], b[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        a[i + 2] = __builtin_shufflevector(b[i + 1], b[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        a[i + 3] = __builtin_shufflevector(b[i + 1], b[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        Eight low = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        Eight high = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
        *reinterpret_cast<Eight*>(to + (c + i) * padded + j) = low;
        *reinterpret_cast<Eight*>(to + (c + i + 4) * padded + j) = high;
      }
    }
  }
  for (int j = whole; j < tokens; ++j)
    for (int c = 0; c < D; ++c) to[c * padded + j] = from[j * D + c];
}

// ---- Attention of one window and one head

// Write scale * from / |from| and return scale / |from|, with at least EPS for |from|.
static float unit(const float* from, float* to, float scale) {
  Vector squares = Vector{};
  for (int c = 0; c < D; c += W) squares += load(from + c) * load(from + c);
  float length = __builtin_sqrtf(sum(squares));
  float factor = scale / (length > EPS ? length : EPS);
  for (int c = 0; c < D; c += W) store(to + c, load(from + c) * factor);
  return factor;
}

static void gather(const Window& window, const float* qkv, int channels, int head, float scale) {
  for (int i = 0; i < window.tokens; ++i) {
    const float* row = qkv + window.places[i] * 3 * channels + head * D;
    window.factors[i] = unit(row, window.q + i * D, scale);
    window.factors[window.tokens + i] = unit(row + channels, window.k + i * D, 1.0f);
    for (int c = 0; c < D; c += W) store(window.v + i * D + c, load(row + 2 * channels + c));
  }
  transpose(window.k, window.transposed_k, window.tokens, window.padded);
}

// Replace R rows of logits by probabilities; logits are without the bias (R rows of N).
static inline void softmax(float* rows, const float* bias, int number, int tokens, int padded) {
  int whole = tokens & ~(W - 1);
  for (int r = 0; r < number; ++r, rows += padded, bias += tokens) {
    Vector top = all(-INFINITY);
    for (int j = 0; j < whole; j += W) {
      Vector logits = load(rows + j) + load(bias + j);
      store(rows + j, logits);
      top = larger(top, logits);
    }
    float most = largest(top);
    for (int j = whole; j < tokens; ++j) {
      rows[j] += bias[j];
      most = rows[j] > most ? rows[j] : most;
    }
    for (int j = tokens; j < padded; ++j) rows[j] = -INFINITY;
    Vector total = Vector{};
    for (int j = 0; j < padded; j += W) {
      Vector found = exponential(load(rows + j) - most);
      store(rows + j, found);
      total += found;
    }
    float factor = 1.0f / sum(total);
    for (int j = 0; j < padded; j += W) store(rows + j, load(rows + j) * factor);
  }
}

static void attend(
    const Window& window, const float* bias, float* logits, float* rows, float* out, int channels) {
  int tokens = window.tokens, padded = window.padded;
  for (int first = 0; first < tokens; first += R) {
    int number = tokens - first < R ? tokens - first : R;
    times_transposed(window.q + first * D, window.transposed_k, logits, padded);
    softmax(logits, bias + int64_t(first) * tokens, number, tokens, padded);
    times(logits, window.v, rows, tokens, padded);
    for (int r = 0; r < number; ++r) {
      float* place = out + window.places[first + r] * channels;
      for (int c = 0; c < D; c += W) store(place + c, load(rows + r * D + c));
    }
  }
}

static void attend_backward(
    const Window& window, const Backward& memory, const float* bias, float* grad_bias) {
  int tokens = window.tokens, padded = window.padded;
  transpose(window.v, memory.transposed_v, tokens, padded);
  for (int i = 0; i < tokens * D; ++i) memory.grad_k[i] = memory.grad_v[i] = 0;
  for (int first = 0; first < tokens; first += R) {
    int number = tokens - first < R ? tokens - first : R;
    int64_t row = int64_t(first) * tokens;
    const float* grad = memory.grad + first * D;
    times_transposed(window.q + first * D, window.transposed_k, memory.logits, padded);
    softmax(memory.logits, bias + row, number, tokens, padded);
    times_transposed(grad, memory.transposed_v, memory.grad_logits, padded);
    for (int r = number; r < R; ++r)
      for (int j = 0; j < padded; ++j)
        memory.logits[r * padded + j] = memory.grad_logits[r * padded + j] = 0;
    add_outer(memory.logits, grad, memory.grad_v, tokens, padded);
    for (int r = 0; r < number; ++r) {
      float *p = memory.logits + r * padded, *g = memory.grad_logits + r * padded;
      for (int j = tokens; j < padded; ++j) g[j] = 0;
      Vector inner = Vector{};
      for (int j = 0; j < padded; j += W) inner += load(p + j) * load(g + j);
      float mean = sum(inner), *of_bias = grad_bias + row + int64_t(r) * tokens;
      for (int j = 0; j < padded; j += W) store(g + j, load(p + j) * (load(g + j) - mean));
      int whole = tokens & ~(W - 1);
      for (int j = 0; j < whole; j += W) store(of_bias + j, load(of_bias + j) + load(g + j));
      for (int j = whole; j < tokens; ++j) of_bias[j] += g[j];
    }
    times(memory.grad_logits, window.k, memory.grad_q + first * D, tokens, padded);
    add_outer(memory.grad_logits, window.q + first * D, memory.grad_k, tokens, padded);
  }
}

// From the gradient of y = factor * x to that of x, where factor = scale / |x|.  Returns x . dy / |x|.
static float unit_backward(
    const float* y, const float* grad, float factor, float scale, float* to) {
  Vector products = Vector{}, squares = Vector{};
  for (int c = 0; c < D; c += W) {
    products += load(y + c) * load(grad + c);
    squares += load(y + c) * load(y + c);
  }
  float inner = sum(products), square = sum(squares);
  // A shorter x than EPS was divided by EPS: the factor is then a constant.
  float along = factor < scale / EPS ? inner / square : 0;
  for (int c = 0; c < D; c += W)
    store(to + c, factor * (load(grad + c) - load(y + c) * along));
  return inner / scale;
}

static void scatter_gradients(
    const Window& window, const Backward& memory, int channels, int head, float scale,
    float* grad_qkv, double* grad_scale) {
  double total = 0;
  for (int i = 0; i < window.tokens; ++i) {
    float* row = grad_qkv + window.places[i] * 3 * channels + head * D;
    const float* factors = window.factors;
    total += unit_backward(
        window.q + i * D, memory.grad_q + i * D, factors[i], scale, row);
    unit_backward(
        window.k + i * D, memory.grad_k + i * D, factors[window.tokens + i], 1.0f, row + channels);
    for (int c = 0; c < D; c += W) store(row + 2 * channels + c, load(memory.grad_v + i * D + c));
  }
  grad_scale[head] += total;
}

// ---- Rows

// The mean and the reciprocal standard deviation of a row (C).
struct Moments {
  float mean, factor;
};

static inline Moments moments(const float* row, int channels, float eps) {
  Vector total = Vector{}, squares = Vector{};
  for (int c = 0; c < channels; c += W) total += load(row + c);
  float mean = sum(total) / channels;
  for (int c = 0; c < channels; c += W) {
    Vector rest = load(row + c) - mean;
    squares += rest * rest;
  }
  return {mean, 1.0f / __builtin_sqrtf(sum(squares) / channels + eps)};
}

// out = x + scale * norm(branch) of rows [first, last) of (n, C); scales (n) may be null.
static void add_norm(
    const float* x, const float* branch, const float* weight, const float* bias,
    const float* scales, float* out, int64_t first, int64_t last, int channels, float eps) {
  for (int64_t row = first; row < last; ++row) {
    const float *from = branch + row * channels, *base = x + row * channels;
    float* to = out + row * channels;
    const auto [mean, factor] = moments(from, channels, eps);
    float scale = scales ? scales[row] : 1.0f;
    for (int c = 0; c < channels; c += W) {
      Vector normed = (load(from + c) - mean) * factor * load(weight + c) + load(bias + c);
      store(to + c, load(base + c) + normed * scale);
    }
  }
}

// The gradient of the branch in x + scale * norm(branch), for rows [first, last) of (n, C); adds
// those of weight and bias (C) to the thread's own sums.
static void add_norm_backward(
    const float* grad, const float* branch, const float* weight, const float* scales, float* out,
    float* grad_weight, float* grad_bias, int64_t first, int64_t last, int channels, float eps) {
  for (int64_t row = first; row < last; ++row) {
    const float *from = branch + row * channels, *given = grad + row * channels;
    float* to = out + row * channels;
    const auto [mean, factor] = moments(from, channels, eps);
    float scale = scales ? scales[row] : 1.0f;
    Vector plain = Vector{}, along = Vector{};
    for (int c = 0; c < channels; c += W) {
      Vector normed = (load(from + c) - mean) * factor, own = load(given + c) * scale;
      store(grad_weight + c, load(grad_weight + c) + own * normed);
      store(grad_bias + c, load(grad_bias + c) + own);
      own *= load(weight + c);
      plain += own;
      along += own * normed;
    }
    float one = sum(plain) / channels, two = sum(along) / channels;
    for (int c = 0; c < channels; c += W) {
      Vector normed = (load(from + c) - mean) * factor;
      Vector own = load(given + c) * scale * load(weight + c);
      store(to + c, (own - one - normed * two) * factor);
    }
  }
}

static void gelu(const float* x, float* out, int64_t first, int64_t last) {
  int64_t i = first;
  for (; i + W <= last; i += W) store(out + i, load(x + i) * normal(load(x + i)).function);
  for (; i < last; ++i) out[i] = x[i] * normal(all(x[i])).function[0];
}

// values = gelu(x), and grad (in place) times its derivative.
static void gelu_backward(const float* x, float* grad, float* values, int64_t first, int64_t last) {
  int64_t i = first;
  for (; i + W <= last; i += W) {
    Vector given = load(x + i);
    Normal found = normal(given);
    store(values + i, given * found.function);
    store(grad + i, load(grad + i) * (found.function + given * found.density));
  }
  for (; i < last; ++i) {
    Normal found = normal(all(x[i]));
    values[i] = x[i] * found.function[0];
    grad[i] *= found.function[0] + x[i] * found.density[0];
  }
}

static const Kernels KERNELS = {
    W, R, gather, attend, attend_backward, scatter_gradients, add_norm, add_norm_backward, gelu,
    gelu_backward, pool, pool_backward};
