// The memory-bound half of a block on a CPU, fused: attention of a tile, residual + norm, GELU; and
// ROIAlign.
//
// Functions of C, called by ctypes on the memory of tensors: the library depends on no version of
// Python or PyTorch.  kernels.h and roi_align.h are compiled for each instruction set;
// swinv2_levels tells which ones the processor has, and every call names one.
//
// Legend: see kernels.h.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr int D = 32;         // channels of a head
constexpr float EPS = 1e-6f;  // as in attention.py
// exp(z * z) * erfc(z) = sum of ERFCX[i] * t^(i + 1) with t = 1 / (1 + ERFCX_RATE * z), z >= 0;
// fitted to a relative error of 1.3e-7.
constexpr float ERFCX_RATE = 0.4f;
constexpr float ERFCX[] = {0.22567586f,  0.22566958f, 0.20784303f,  0.16853959f, 0.14144027f,
                           -0.00562586f, 0.16910685f, -0.18291461f, 0.05026542f};

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
typedef float Eight __attribute__((vector_size(32), aligned(4), may_alias));

// A window's queries (scaled), keys and values, in a thread's own memory.
struct Window {
  int tokens, padded;
  int64_t* places;  // the window's tokens in the tile, (N)
  float *q, *k, *v, *transposed_k, *factors;  // (N', D), (N, D), (N, D), (D, Np), (2, N)
};

// Memory of the backward of a window.
struct Backward {
  float *grad, *transposed_v, *logits, *grad_logits;  // (N', D), (D, Np), (R, Np), (R, Np)
  float *grad_q, *grad_k, *grad_v;                    // (N', D) each
};

// A bin of ROIAlign along an axis: the weights of consecutive pixels.
struct Bin {
  int first, count;
  const float* weights;
};

// The bins of a box along an axis, within the pixels [begin, end).
struct Box {
  int count, begin, end;
  const Bin* bins;
};

// The kernels of an instruction set.
struct Kernels {
  int width, rows;  // W and R
  void (*gather)(const Window&, const float*, int, int, float);
  void (*attend)(const Window&, const float*, float*, float*, float*, int);
  void (*attend_backward)(const Window&, const Backward&, const float*, float*);
  void (*scatter_gradients)(const Window&, const Backward&, int, int, float, float*, double*);
  void (*add_norm)(
      const float*, const float*, const float*, const float*, const float*, float*, int64_t,
      int64_t, int, float);
  void (*add_norm_backward)(
      const float*, const float*, const float*, const float*, float*, float*, float*, int64_t,
      int64_t, int, float);
  void (*gelu)(const float*, float*, int64_t, int64_t);
  void (*gelu_backward)(const float*, float*, float*, int64_t, int64_t);
  void (*pool)(const Box&, const Box&, float*, int, float*, float*);
  void (*pool_backward)(const Box&, const Box&, float*, int, float*, float*);
};

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define W 8
#include "roi_align.h"
#include "kernels.h"
#undef W
}  // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,prefer-vector-width=512")
namespace avx512 {
#define W 16
#include "roi_align.h"
#include "kernels.h"
#undef W
}  // namespace avx512
#pragma GCC pop_options
constexpr const Kernels* LEVELS[] = {&avx2::KERNELS, &avx512::KERNELS};
#else
namespace other {
#define W 8
#include "roi_align.h"
#include "kernels.h"
#undef W
}  // namespace other
constexpr const Kernels* LEVELS[] = {&other::KERNELS};
#endif

// The windows of one size in a tile, as tiles.Group has them.
struct Group {
  int64_t first, maps, down_count, right_count, down, right, map_tokens, map_width, height, width;

  int64_t windows() const { return maps * down_count * right_count; }

  void find(int64_t number, int64_t* places) const {
    int64_t column = number % right_count, row = number / right_count % down_count;
    int64_t start = first + number / (right_count * down_count) * map_tokens + row * down +
                    column * right;
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x) *places++ = start + y * map_width + x;
  }
};

// The memory of one thread, aligned to cache lines.
class Memory {
 public:
  explicit Memory(size_t bytes) {
    size_t whole = (bytes + 63) / 64 * 64;
    start_ = next_ = static_cast<char*>(std::aligned_alloc(64, whole));
  }
  ~Memory() { std::free(start_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  template <typename Element>
  Element* take(int64_t count) {
    char* found = next_;
    next_ += (count * sizeof(Element) + 63) / 64 * 64;
    return reinterpret_cast<Element*>(found);
  }

 private:
  char *start_, *next_;
};

struct Sizes {
  int tokens, padded, rows;  // N, Np, N'
  Sizes(const Group& group, const Kernels& kernels) {
    int pair = 2 * kernels.width;
    tokens = int(group.height * group.width);
    padded = (tokens + pair - 1) / pair * pair;
    rows = (tokens + kernels.rows - 1) / kernels.rows * kernels.rows;
  }
  // An upper bound, in bytes, of the memory of a thread.
  size_t bytes(const Kernels& kernels) const {
    return sizeof(float) * (size_t(8 * rows + 2 * padded) * D + 3 * kernels.rows * padded +
                            2 * tokens + kernels.rows * D) +
           sizeof(int64_t) * tokens + 64 * 20;
  }
};

Window take_window(Memory& memory, const Sizes& sizes) {
  Window found;
  found.tokens = sizes.tokens;
  found.padded = sizes.padded;
  found.places = memory.take<int64_t>(sizes.tokens);
  found.q = memory.take<float>(sizes.rows * D);
  found.k = memory.take<float>(sizes.tokens * D);
  found.v = memory.take<float>(sizes.tokens * D);
  found.transposed_k = memory.take<float>(sizes.padded * D);
  found.factors = memory.take<float>(2 * sizes.tokens);
  // What is behind the last token is computed too, and must be finite.
  std::memset(found.q, 0, sizeof(float) * sizes.rows * D);
  std::memset(found.transposed_k, 0, sizeof(float) * sizes.padded * D);
  return found;
}

// The share [first, last) of a thread.
struct Share {
  int64_t first, last;
  Share(int64_t count, int thread, int threads)
      : first(count * thread / threads), last(count * (thread + 1) / threads) {}
};

constexpr float MOST_SAMPLES = 1 << 20;  // of a bin along an axis

// The bins of all boxes along one axis of the map.
class Bins {
 public:
  // boxes (number, 5): image, left, top, right, bottom; axis 0 is x and 1 is y.
  Bins(const float* boxes, int64_t number, int axis, int pixels, int bins, float scale, int ratio,
       bool aligned)
      : pixels_(pixels) {
    boxes_.reserve(number);
    bins_.reserve(number * bins);
    const float shift = aligned ? 0.5f : 0.0f;
    for (const float* box = boxes; box < boxes + number * 5; box += 5) {
      const float start = box[1 + axis] * scale - shift;
      float size = box[3 + axis] * scale - shift - start;
      if (!aligned && size < 1) size = 1;
      add_box(start, size, bins, ratio);
    }
    // The vectors do not move any more.
    for (size_t i = 0, at = 0; i < bins_.size(); at += bins_[i++].count)
      bins_[i].weights = weights_.data() + at;
    for (size_t i = 0; i < boxes_.size(); ++i) boxes_[i].bins = bins_.data() + i * bins;
  }

  const Box& operator[](int64_t number) const { return boxes_[number]; }

 private:
  void add_box(float start, float size, int bins, int ratio) {
    const float step = size / bins;
    Box box{bins, pixels_, 0, nullptr};
    for (int i = 0; i < bins; ++i) {
      Bin bin{0, 0, nullptr};
      if (!std::isfinite(start) || !std::isfinite(size)) {  // shows in the result
        bin.count = 1;
        weights_.push_back(NAN);
      } else {
        const float asked = ratio > 0 ? float(ratio) : std::ceil(step);
        const int samples = int(std::fmax(0.0f, std::fmin(asked, MOST_SAMPLES)));
        bin = add_samples(start + i * step, step, samples);
      }
      if (bin.count) {
        box.begin = std::min(box.begin, bin.first);
        box.end = std::max(box.end, bin.first + bin.count);
      }
      bins_.push_back(bin);
    }
    if (box.begin < box.end) {  // whole vectors, where the map has them
      const int span = std::min((box.end - box.begin + 7) / 8 * 8, pixels_);
      box.begin = std::min(box.begin, pixels_ - span);
      box.end = box.begin + span;
    } else {
      box.begin = box.end = 0;
    }
    boxes_.push_back(box);
  }

  // The mean of samples at the centers of equal parts of [start, start + step); those more than a
  // pixel outside of the map count as zeros.
  Bin add_samples(float start, float step, int samples) {
    places_.clear();
    int first = pixels_, last = -1;
    for (int i = 0; i < samples; ++i) {
      float place = start + (i + 0.5f) * step / samples;
      if (place < -1 || place > pixels_) continue;
      place = std::fmin(std::fmax(place, 0.0f), float(pixels_ - 1));
      places_.push_back(place);
      first = std::min(first, int(place));
      last = std::max(last, std::min(int(place) + 1, pixels_ - 1));
    }
    if (places_.empty()) return {0, 0, nullptr};
    const int count = last - first + 1;
    weights_.resize(weights_.size() + count, 0.0f);
    float* weights = weights_.data() + weights_.size() - count;
    for (float place : places_) {
      const int low = int(place);
      const float rest = place - low;
      weights[low - first] += (1 - rest) / samples;
      if (rest > 0) weights[low - first + 1] += rest / samples;
    }
    return {first, count, nullptr};
  }

  int pixels_;
  std::vector<Box> boxes_;
  std::vector<Bin> bins_;
  std::vector<float> weights_, places_;
};

}  // namespace

extern "C" {

// Compared with the version that library.py expects.
int swinv2_version() { return 2; }

// Bit i is set if the processor has the instructions of level i.
int swinv2_levels() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  return (avx2 ? 1 : 0) | (avx2 && avx512 ? 2 : 0);
#else
  return 1;
#endif
}

// out (n, C): attention within the windows of a group, from qkv (n, 3C).
void swinv2_attend(
    int level, int threads, const float* qkv, const float* scale, const float* bias,
    const Group* group, int heads, float* out) {
  const Kernels& kernels = *LEVELS[level];
  const Sizes sizes(*group, kernels);
#pragma omp parallel num_threads(threads)
  {
    const Share share(group->windows() * heads, omp_get_thread_num(), omp_get_num_threads());
    if (share.first < share.last) {
      Memory memory(sizes.bytes(kernels));
      Window window = take_window(memory, sizes);
      float* logits = memory.take<float>(kernels.rows * sizes.padded);
      float* rows = memory.take<float>(kernels.rows * D);
      int64_t known = -1;
      for (int64_t item = share.first; item < share.last; ++item) {
        int head = int(item % heads);
        if (item / heads != known) group->find(known = item / heads, window.places);
        const float* own = bias + int64_t(head) * sizes.tokens * sizes.tokens;
        kernels.gather(window, qkv, heads * D, head, scale[head]);
        kernels.attend(window, own, logits, rows, out + head * D, heads * D);
      }
    }
  }
}

// grad_qkv (n, 3C) from grad (n, C); adds to grad_scale (threads, nH) and grad_bias, the sums of
// each thread: (threads, nH, N, N), or, if the threads share it, (nH, N, N); then each has heads of
// its own.
void swinv2_attend_backward(
    int level, int threads, const float* grad, const float* qkv, const float* scale,
    const float* bias, const Group* group, int heads, float* grad_qkv, double* grad_scale,
    float* grad_bias, int shared) {
  const Kernels& kernels = *LEVELS[level];
  const Sizes sizes(*group, kernels);
  const int64_t matrix = int64_t(sizes.tokens) * sizes.tokens;
#pragma omp parallel num_threads(threads)
  {
    int thread = omp_get_thread_num(), team = omp_get_num_threads();
    const int64_t windows = group->windows();
    const Share heads_of(heads, thread, team), items(windows * heads, thread, team);
    const int64_t first = shared ? heads_of.first * windows : items.first;
    const int64_t last = shared ? heads_of.last * windows : items.last;
    float* sums = grad_bias + (shared ? 0 : thread * heads * matrix);
    if (first < last) {
      Memory memory(sizes.bytes(kernels));
      Window window = take_window(memory, sizes);
      Backward own;
      own.grad = memory.take<float>(sizes.rows * D);
      own.transposed_v = memory.take<float>(sizes.padded * D);
      own.logits = memory.take<float>(kernels.rows * sizes.padded);
      own.grad_logits = memory.take<float>(kernels.rows * sizes.padded);
      own.grad_q = memory.take<float>(sizes.rows * D);
      own.grad_k = memory.take<float>(sizes.rows * D);
      own.grad_v = memory.take<float>(sizes.rows * D);
      std::memset(own.transposed_v, 0, sizeof(float) * sizes.padded * D);
      std::memset(own.grad, 0, sizeof(float) * sizes.rows * D);
      int64_t known = -1;
      for (int64_t item = first; item < last; ++item) {
        int head = int(shared ? item / windows : item % heads);
        int64_t number = shared ? item % windows : item / heads;
        if (number != known) group->find(known = number, window.places);
        kernels.gather(window, qkv, heads * D, head, scale[head]);
        for (int i = 0; i < sizes.tokens; ++i)
          std::memcpy(own.grad + i * D, grad + (window.places[i] * heads + head) * D,
                      sizeof(float) * D);
        kernels.attend_backward(window, own, bias + head * matrix, sums + head * matrix);
        kernels.scatter_gradients(
            window, own, heads * D, head, scale[head], grad_qkv, grad_scale + thread * heads);
      }
    }
  }
}

// out (nH, N, N), the bias of each pair of tokens of a window of h x w, from the bias of offsets
// (nH, (2h - 1) * (2w - 1)).
void swinv2_bias(int, int threads, const float* offsets, int heads, int h, int w, float* out) {
  const int64_t tokens = int64_t(h) * w, row = 2 * w - 1, table = (2 * h - 1) * row;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t item = 0; item < heads * tokens; ++item) {
    const float* own = offsets + item / tokens * table;
    int64_t y = item % tokens / w, x = item % tokens % w;
    float* to = out + item * tokens;
    for (int64_t other = 0; other < h; ++other) {
      const float* from = own + (y - other + h - 1) * row + x + w - 1;
      for (int64_t j = 0; j < w; ++j) *to++ = from[-j];
    }
  }
}

// Adds the gradients of all pairs, (nH, N, N), to those of the offsets.
void swinv2_bias_backward(
    int, int threads, const float* grad, int heads, int h, int w, float* offsets) {
  const int64_t tokens = int64_t(h) * w, row = 2 * w - 1, table = (2 * h - 1) * row;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int head = 0; head < heads; ++head) {
    const float* from = grad + head * tokens * tokens;
    for (int64_t i = 0; i < tokens; ++i) {
      int64_t y = i / w, x = i % w;
      for (int64_t other = 0; other < h; ++other, from += w) {
        float* to = offsets + head * table + (y - other + h - 1) * row + x + w - 1;
        for (int64_t j = 0; j < w; ++j) to[-j] += from[j];
      }
    }
  }
}

// out = x + scales * norm(branch), all (n, C); scales (n) may be null.
void swinv2_add_norm(
    int level, int threads, const float* x, const float* branch, const float* weight,
    const float* bias, const float* scales, float* out, int64_t tokens, int channels, float eps) {
#pragma omp parallel num_threads(threads)
  {
    const Share share(tokens, omp_get_thread_num(), omp_get_num_threads());
    LEVELS[level]->add_norm(
        x, branch, weight, bias, scales, out, share.first, share.last, channels, eps);
  }
}

// out (n, C), the gradient of the branch; sums (threads, 2, C) gets those of weight and bias.
void swinv2_add_norm_backward(
    int level, int threads, const float* grad, const float* branch, const float* weight,
    const float* scales, float* out, float* sums, int64_t tokens, int channels, float eps) {
#pragma omp parallel num_threads(threads)
  {
    int thread = omp_get_thread_num();
    const Share share(tokens, thread, omp_get_num_threads());
    float* own = sums + int64_t(thread) * 2 * channels;
    LEVELS[level]->add_norm_backward(
        grad, branch, weight, scales, out, own, own + channels, share.first, share.last, channels,
        eps);
  }
}

void swinv2_gelu(int level, int threads, const float* x, float* out, int64_t count) {
#pragma omp parallel num_threads(threads)
  {
    const Share share(count, omp_get_thread_num(), omp_get_num_threads());
    LEVELS[level]->gelu(x, out, share.first, share.last);
  }
}

// values = gelu(x); grad, that of gelu(x), becomes that of x.
void swinv2_gelu_backward(
    int level, int threads, const float* x, float* grad, float* values, int64_t count) {
#pragma omp parallel num_threads(threads)
  {
    const Share share(count, omp_get_thread_num(), omp_get_num_threads());
    LEVELS[level]->gelu_backward(x, grad, values, share.first, share.last);
  }
}

// bins (number, channels, rows, columns) of boxes (number, 5) on maps (images, channels, height,
// width).  Backward: adds the gradient of bins to that of maps.
void swinv2_roi_align(
    int level, int threads, float* maps, const float* boxes, int64_t number, int images,
    int channels, int height, int width, int rows, int columns, float scale, int ratio, int aligned,
    int backward, float* bins) {
  const Bins down(boxes, number, 1, height, rows, scale, ratio, aligned);
  const Bins across(boxes, number, 0, width, columns, scale, ratio, aligned);
  const auto pool = backward ? LEVELS[level]->pool_backward : LEVELS[level]->pool;
  const int64_t plane = int64_t(height) * width, own = int64_t(rows) * columns;
#pragma omp parallel num_threads(threads)
  {
    const Share share(int64_t(images) * channels, omp_get_thread_num(), omp_get_num_threads());
    std::vector<float> row(width);
    for (int64_t item = share.first; item < share.last; ++item) {
      const int64_t image = item / channels, channel = item % channels;
      for (int64_t i = 0; i < number; ++i)
        if (int(boxes[i * 5]) == image)
          pool(down[i], across[i], maps + item * plane, width, row.data(),
               bins + (i * channels + channel) * own);
    }
  }
}

}  // extern "C"
