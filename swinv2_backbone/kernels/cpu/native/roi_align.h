// ROIAlign of one box and one channel; included once for each instruction set, see native.cpp.
//
// Bilinear samples of a box, averaged in bins, are the product of a sum along each axis, so a box
// is computed by rows of pixels, not by samples of four pixels each.

constexpr int EIGHT = 8;

// to += weight * from, rows of `span` pixels.
static inline void add_scaled(float* to, const float* from, float weight, int span) {
  int x = 0;
  for (; x + EIGHT <= span; x += EIGHT) {
    const Eight more = *reinterpret_cast<const Eight*>(from + x) * weight;
    *reinterpret_cast<Eight*>(to + x) += more;
  }
  for (; x < span; ++x) to[x] += weight * from[x];
}

// bins (of down, of across) from the plane of a channel; row has room for a row of it.
static void pool(
    const Box& down, const Box& across, float* plane, int width, float* row, float* bins) {
  const int span = across.end - across.begin;
  for (int i = 0; i < down.count; ++i) {
    const Bin& bin = down.bins[i];
    for (int x = 0; x < span; ++x) row[x] = 0;
    for (int k = 0; k < bin.count; ++k) {
      if (bin.weights[k] == 0) continue;  // between samples; an infinite pixel there has no effect
      add_scaled(row, plane + int64_t(bin.first + k) * width + across.begin, bin.weights[k], span);
    }
    for (int j = 0; j < across.count; ++j) {
      const Bin& other = across.bins[j];
      const float* from = row + (other.first - across.begin);
      float total = 0;
      for (int k = 0; k < other.count; ++k)
        if (other.weights[k] != 0) total += other.weights[k] * from[k];
      *bins++ = total;
    }
  }
}

// Adds the gradient of the plane, from that of bins.
static void pool_backward(
    const Box& down, const Box& across, float* plane, int width, float* row, float* bins) {
  const int span = across.end - across.begin;
  for (int i = 0; i < down.count; ++i) {
    const Bin& bin = down.bins[i];
    for (int x = 0; x < span; ++x) row[x] = 0;
    for (int j = 0; j < across.count; ++j) {
      const Bin& other = across.bins[j];
      float* to = row + (other.first - across.begin);
      const float given = *bins++;
      for (int k = 0; k < other.count; ++k) to[k] += other.weights[k] * given;
    }
    for (int k = 0; k < bin.count; ++k)
      add_scaled(plane + int64_t(bin.first + k) * width + across.begin, row, bin.weights[k], span);
  }
}
