// A layer of the Transformer, forward and backward. The definition is `transformer_layer` of
// policies/cores/attention.py.

#include <cmath>

#include "norms.h"
#include "threads.h"

extern "C" {

// T new tokens of n sequences; token t of sequence i has the index t * n + i. Tokens see themselves, earlier ones and
// those in the cache, whose places from `past` on get the new keys and values. Without a cache, sequence i ends before
// token lengths[i]: what follows is neither read nor differentiated, and its output is 0.
struct TransformerCall {
    const float* x;                     // [T * n, width]
    const float *norm, *norm_bias;      // [width], of the attention's input
    const float *qkv, *qkv_bias;        // [3 width, width]
    const float *out, *out_bias;        // [width, width]
    const float *second, *second_bias;  // [width], of the input of the feed-forward part
    const float *up, *up_bias;          // [inner, width]
    const float *down, *down_bias;      // [width, inner]
    const int64_t* lengths;             // [n], or null where every sequence has T tokens
    float *keys, *values;               // [n, capacity, width] each, the cache; or null
    int64_t steps, sequences, width, inner, heads, past, capacity, threads;
};

int64_t transformer_call_size() { return sizeof(TransformerCall); }

}  // extern "C"

namespace {

constexpr int64_t TOKENS = 8 * TALL;   // in a block, at least; few enough that they stay in the caches
constexpr int64_t QUERIES = 8 * TALL;  // of a sequence at a time
constexpr float NONE = -3e38f;         // a score that gives no weight
constexpr float SLOPE = 1.5957691216f, CUBIC = 0.044715f;  // 2 sqrt(2 / pi), and of the cube in gelu's approximation

inline int64_t padded(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

// Columns of a sequence's keys or values, [count, width] with rows of `stride`, become rows of `capacity`; zeros
// follow.
inline void to_columns(const float* rows, int64_t stride, int64_t count, int64_t width, float* columns,
                       int64_t capacity) {
    for (int64_t j = 0; j < width; j++) {
        for (int64_t p = 0; p < count; p++) columns[j * capacity + p] = rows[p * stride + j];
        std::fill_n(columns + j * capacity + count, padded(count) - count, 0.0f);
    }
}

// Sums of pairs of neighbors: those of a, then those of b.
inline vec pairs(vec a, vec b) {
#if !defined(__clang__) && __GNUC__ < 12
    vec sum;
    for (int l = 0; l < LANES / 2; l++) sum[l] = a[2 * l] + a[2 * l + 1], sum[LANES / 2 + l] = b[2 * l] + b[2 * l + 1];
    return sum;
#elif defined(__AVX512F__)
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX__)
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
    return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

// The products of one query and `count` keys, which are rows; past `count` the last one is repeated.
inline void scores_of_one(const float* query, const float* keys, int64_t stride, int64_t count, int64_t size,
                          float* scores) {
    for (int64_t p = 0; p < count; p += LANES) {
        vec sums[LANES];
        for (int l = 0; l < LANES; l++) {
            const float* key = keys + std::min(p + l, count - 1) * stride;
            sums[l] = vec{};
            for (int64_t j = 0; j < size; j += LANES) sums[l] += load(query + j) * load(key + j);
        }
        for (int left = LANES / 2; left; left /= 2)
            for (int l = 0; l < left; l++) sums[l] = pairs(sums[2 * l], sums[2 * l + 1]);
        store(scores + p, sums[0]);
    }
}

// Keys and values of a sequence, rows of `stride`, and room for the keys as columns, [width, capacity].
struct Past {
    const float *keys, *values;
    int64_t stride;
    float* columns;
    int64_t capacity;
};

// Attention of `count` queries, the first of which sees `places` places and every other one more: the softmax of their
// scores is written to `weights`, rows of padded(places + count - 1), and the means of the values to `out`.
inline void attend(const TransformerCall& c, const float* query, int64_t count, int64_t places, const Past& past,
                   float* weights, float* out, float* sums) {
    const int64_t size = c.width / c.heads, most = places + count - 1, row = padded(most), stride = 3 * c.width;
    const float scale = 1.0f / std::sqrt(float(size));
    for (int64_t h = 0, at = 0; h < c.heads; h++, at += size) {
        if (past.columns)
            product(count, row, size, query + at, stride, 1, past.columns + at * past.capacity, past.capacity, weights,
                    row, false);
        else
            scores_of_one(query + at, past.keys + at, past.stride, most, size, weights);
        for (int64_t t = 0; t < count; t++) {
            float* score = weights + t * row;
            const int64_t seen = places + t;
            for (int64_t p = seen; p < row; p++) score[p] = NONE;
            vec high = load(score), sum = {};
            for (int64_t p = LANES; p < row; p += LANES) high = larger(high, load(score + p));
            float top = high[0];
            for (int l = 1; l < LANES; l++) top = std::max(top, high[l]);
            for (int64_t p = 0; p < row; p += LANES) {
                const vec seen_score = load(score + p);
                const vec weight = seen_score > -1e38f ? exponential(scale * (seen_score - top)) : vec{};
                store(score + p, weight);
                sum += weight;
            }
            const float all_of_it = total(sum), share = 1.0f / all_of_it;
            for (int64_t p = 0; p < row; p += LANES) store(score + p, load(score + p) * share);
            if (sums) sums[t * c.heads + h] = scale * top + std::log(all_of_it);
        }
        product(count, size, most, weights, row, 1, past.values + at, past.stride, out + at, c.width, false);
    }
}

// The gradients of a sequence of `count` tokens: `changes` gets those of queries, keys and values. `room` is for
// attend_back_room(c, count) numbers.
inline int64_t attend_back_room(const TransformerCall& c, int64_t count) {
    return padded(count) * 2 * (c.width + QUERIES);
}

inline void attend_back(const TransformerCall& c, int64_t count, const float* qkv, const float* mixed,
                        const float* sums, const float* grad, float* room, float* changes) {
    const int64_t W = c.width, size = W / c.heads, stride = 3 * W, capacity = padded(count);
    const float scale = 1.0f / std::sqrt(float(size));
    float *keys = room, *values = keys + W * capacity, *weights = values + W * capacity,
          *slopes = weights + QUERIES * capacity;
    to_columns(qkv + W, stride, count, W, keys, capacity);
    to_columns(qkv + 2 * W, stride, count, W, values, capacity);
    std::fill_n(changes, count * stride, 0.0f);
    for (int64_t first = 0; first < count; first += QUERIES) {
        const int64_t queries = std::min(QUERIES, count - first), most = first + queries, row = padded(most);
        for (int64_t h = 0, at = 0; h < c.heads; h++, at += size) {
            const float *query = qkv + first * stride + at, *above = grad + first * W + at;
            product(queries, row, size, query, stride, 1, keys + at * capacity, capacity, weights, row, false);
            product(queries, row, size, above, W, 1, values + at * capacity, capacity, slopes, row, false);
            for (int64_t t = 0; t < queries; t++) {
                float *weight = weights + t * row, *slope = slopes + t * row;
                const float sum = sums[(first + t) * c.heads + h], *from = mixed + (first + t) * W + at;
                vec along = {};
                for (int64_t j = 0; j < size; j += LANES) along += load(above + t * W + j) * load(from + j);
                const float mean = total(along);
                for (int64_t p = first + t + 1; p < row; p++) weight[p] = NONE;
                for (int64_t p = 0; p < row; p += LANES) {
                    const vec score = load(weight + p);
                    const vec share = score > -1e38f ? exponential(scale * score - sum) : vec{};
                    store(weight + p, share);
                    store(slope + p, scale * share * (load(slope + p) - mean));
                }
            }
            float *of_query = changes + first * stride + at, *of_keys = changes + W + at, *of_values = of_keys + W;
            product(queries, size, most, slopes, row, 1, qkv + W + at, stride, of_query, stride, false);
            product(most, size, queries, slopes, 1, row, query, stride, of_keys, stride, true);
            product(most, size, queries, weights, 1, row, above, W, of_values, stride, true);
        }
    }
}

// The sequences in blocks of at least TOKENS tokens, and where the tokens of each begin, packed one after the other.
struct Blocks {
    std::vector<int64_t> offsets, starts;
    int64_t most = 0;  // tokens in a block

    explicit Blocks(const TransformerCall& c) : offsets(c.sequences + 1) {
        starts.push_back(0);
        for (int64_t i = 0; i < c.sequences; i++) {
            offsets[i + 1] = offsets[i] + (c.lengths ? c.lengths[i] : c.steps);
            const int64_t size = offsets[i + 1] - offsets[starts.back()];
            if (size >= TOKENS || i + 1 == c.sequences) starts.push_back(i + 1), most = std::max(most, size);
        }
    }

    int64_t count() const { return starts.size() - 1; }
};

}  // namespace

extern "C" {

// The layer's output [T * n, width]. Without a cache, `kept` may be asked for; with null pointers it is not.
void transformer_forward(const TransformerCall* call, float* y, float* qkv, float* mixed, float* middle, float* up,
                         float* sums) {
    const TransformerCall& c = *call;
    const int64_t W = c.width, Q = 3 * W, I = c.inner, capacity = padded(c.past + c.steps);
    std::vector<float> across(W * (Q + W + 2 * I));
    float *qkv_across = across.data(), *out_across = qkv_across + W * Q, *up_across = out_across + W * W,
          *down_across = up_across + W * I;
    transpose(c.qkv, Q, W, qkv_across), transpose(c.out, W, W, out_across);
    transpose(c.up, I, W, up_across), transpose(c.down, W, I, down_across);
    const Blocks blocks(c);
    const int64_t parts = std::min(4 * c.threads, blocks.count());
    workers().share(parts, c.threads, [&](int64_t part) {
        std::vector<float> room(blocks.most * (Q + 4 * W + 2 * I) + (W + QUERIES) * capacity);
        for (int64_t block = part; block < blocks.count(); block += parts) {
            const int64_t first = blocks.starts[block], end = blocks.starts[block + 1], base = blocks.offsets[first],
                          m = blocks.offsets[end] - base;
            float *normal = room.data(), *result = normal + m * W, *active = result + m * W, *free = active + m * I;
            const auto place = [&](float* kept, int64_t columns) {
                if (kept) return kept + base * columns;
                float* here = free;
                free += m * columns;
                return here;
            };
            float *of_qkv = place(qkv, Q), *of_mixed = place(mixed, W), *of_middle = place(middle, W),
                  *of_up = place(up, I), *columns = free, *weights = columns + W * capacity;
            const auto each = [&](auto&& function) {  // of a token: its index, its place in the block
                for (int64_t i = first; i < end; i++)
                    for (int64_t at = blocks.offsets[i]; at < blocks.offsets[i + 1]; at++)
                        function((at - blocks.offsets[i]) * c.sequences + i, at - base);
            };
            each([&](int64_t token, int64_t k) {
                normalize(c.x + token * W, c.norm, c.norm_bias, W, normal + k * W);
                for (int64_t j = 0; j < W; j += LANES)
                    store(of_middle + k * W + j, load(c.x + token * W + j) + load(c.out_bias + j));
            });
            repeat(c.qkv_bias, Q, m, of_qkv);
            product(m, Q, W, normal, W, 1, qkv_across, Q, of_qkv, Q, true);
            for (int64_t i = first; i < end; i++) {
                const int64_t start = blocks.offsets[i] - base, count = blocks.offsets[i + 1] - blocks.offsets[i];
                const float *queries = of_qkv + start * Q, *new_keys = queries + W, *new_values = new_keys + W;
                Past past = {new_keys, new_values, Q, columns, capacity};
                if (c.keys) {
                    float *keys = c.keys + i * c.capacity * W, *values = c.values + i * c.capacity * W;
                    for (int64_t t = 0; t < count; t++) {
                        std::memcpy(keys + (c.past + t) * W, new_keys + t * Q, W * sizeof(float));
                        std::memcpy(values + (c.past + t) * W, new_values + t * Q, W * sizeof(float));
                    }
                    past = {keys, values, W, count > 1 ? columns : nullptr, capacity};
                }
                if (past.columns) to_columns(past.keys, past.stride, c.past + count, W, columns, capacity);
                for (int64_t t = 0; t < count; t += QUERIES)
                    attend(c, queries + t * Q, std::min(QUERIES, count - t), c.past + t + 1, past, weights,
                           of_mixed + (start + t) * W, sums ? sums + (base + start + t) * c.heads : nullptr);
            }
            product(m, W, W, of_mixed, W, 1, out_across, W, of_middle, W, true);
            for (int64_t k = 0; k < m; k++) {
                normalize(of_middle + k * W, c.second, c.second_bias, W, normal + k * W);
                for (int64_t j = 0; j < W; j += LANES)
                    store(result + k * W + j, load(of_middle + k * W + j) + load(c.down_bias + j));
            }
            repeat(c.up_bias, I, m, of_up);
            product(m, I, W, normal, W, 1, up_across, I, of_up, I, true);
            for (int64_t j = 0; j < m * I; j += LANES) {
                const vec u = load(of_up + j);
                store(active + j, u * sigmoid(SLOPE * (u + CUBIC * u * u * u)));
            }
            product(m, W, I, active, I, 1, down_across, W, result, W, true);
            each([&](int64_t token, int64_t k) { std::memcpy(y + token * W, result + k * W, W * sizeof(float)); });
            for (int64_t i = first; i < end; i++)
                for (int64_t t = blocks.offsets[i + 1] - blocks.offsets[i]; t < c.steps; t++)
                    std::fill_n(y + (t * c.sequences + i) * W, W, 0.0f);
        }
    });
}

// From the gradient of the output to those of x and of the weights, in their order.
void transformer_backward(const TransformerCall* call, const float* qkv, const float* mixed, const float* middle,
                          const float* up, const float* sums, const float* grad, float* of_x, float* of_norm,
                          float* of_norm_bias, float* of_qkv, float* of_qkv_bias, float* of_out, float* of_out_bias,
                          float* of_second, float* of_second_bias, float* of_up, float* of_up_bias, float* of_down,
                          float* of_down_bias) {
    const TransformerCall& c = *call;
    const int64_t W = c.width, Q = 3 * W, I = c.inner;
    const Blocks blocks(c);
    Sums all({{of_norm, W},
              {of_norm_bias, W},
              {of_qkv, Q * W},
              {of_qkv_bias, Q},
              {of_out, W * W},
              {of_out_bias, W},
              {of_second, W},
              {of_second_bias, W},
              {of_up, I * W},
              {of_up_bias, I},
              {of_down, W * I},
              {of_down_bias, W}},
             blocks.count() / 2);
    workers().share(all.parts, c.threads, [&](int64_t part) {
        float* of[12];
        for (int k = 0; k < 12; k++) of[k] = all.of(part, k);
        std::vector<float> room(blocks.most * (Q + 4 * W + 2 * I) + attend_back_room(c, c.steps));
        for (int64_t block = part; block < blocks.count(); block += all.parts) {
            const int64_t first = blocks.starts[block], end = blocks.starts[block + 1], base = blocks.offsets[first],
                          m = blocks.offsets[end] - base;
            float *normal = room.data(), *above = normal + m * W, *inner = above + m * W, *change = inner + m * W,
                  *x = change + m * Q, *active = x + m * W, *wide = active + m * I, *free = wide + m * I;
            const auto each = [&](auto&& function) {
                for (int64_t i = first; i < end; i++)
                    for (int64_t at = blocks.offsets[i]; at < blocks.offsets[i + 1]; at++)
                        function((at - blocks.offsets[i]) * c.sequences + i, at - base);
            };
            each([&](int64_t token, int64_t k) {
                std::memcpy(above + k * W, grad + token * W, W * sizeof(float));
                std::memcpy(x + k * W, c.x + token * W, W * sizeof(float));
            });
            const float *in_middle = middle + base * W, *in_up = up + base * I;
            // The feed-forward part.
            product(m, I, W, above, W, 1, c.down, I, wide, I, false);
            for (int64_t j = 0; j < m * I; j += LANES) {
                const vec u = load(in_up + j), share = sigmoid(SLOPE * (u + CUBIC * u * u * u));
                const vec slope = share + u * share * (1.0f - share) * SLOPE * (1.0f + 3.0f * CUBIC * u * u);
                store(active + j, u * share);
                store(wide + j, load(wide + j) * slope);
            }
            product(W, I, m, above, 1, W, active, I, of[10], I, true);
            add_rows(above, W, m, of[11]);
            for (int64_t k = 0; k < m; k++) normalize(in_middle + k * W, c.second, c.second_bias, W, normal + k * W);
            product(I, W, m, wide, 1, I, normal, W, of[8], W, true);
            add_rows(wide, I, m, of[9]);
            product(m, W, I, wide, I, 1, c.up, W, inner, W, false);
            for (int64_t k = 0; k < m; k++)
                normalize_back(in_middle + k * W, c.second, W, inner + k * W, above + k * W, of[6], of[7]);
            // Attention.
            product(W, W, m, above, 1, W, mixed + base * W, W, of[4], W, true);
            add_rows(above, W, m, of[5]);
            product(m, W, W, above, W, 1, c.out, W, inner, W, false);
            for (int64_t i = first; i < end; i++) {
                const int64_t at = blocks.offsets[i], count = blocks.offsets[i + 1] - at;
                attend_back(c, count, qkv + at * Q, mixed + at * W, sums + at * c.heads, inner + (at - base) * W, free,
                            change + (at - base) * Q);
            }
            for (int64_t k = 0; k < m; k++) normalize(x + k * W, c.norm, c.norm_bias, W, normal + k * W);
            product(Q, W, m, change, 1, Q, normal, W, of[2], W, true);
            add_rows(change, Q, m, of[3]);
            product(m, W, Q, change, Q, 1, c.qkv, W, inner, W, false);
            for (int64_t k = 0; k < m; k++)
                normalize_back(x + k * W, c.norm, W, inner + k * W, above + k * W, of[0], of[1]);
            each([&](int64_t token, int64_t k) { std::memcpy(of_x + token * W, above + k * W, W * sizeof(float)); });
            for (int64_t i = first; i < end; i++)
                for (int64_t t = blocks.offsets[i + 1] - blocks.offsets[i]; t < c.steps; t++)
                    std::fill_n(of_x + (t * c.sequences + i) * W, W, 0.0f);
        }
    });
    all.add();
}

}  // extern "C"
