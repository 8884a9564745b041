// Policy, value and copy head, forward and backward. The definition is `copy_heads` of policies/heads.py.

#include "lanes.h"
#include "threads.h"

extern "C" {

// Hidden states of T steps of n episodes, time first; M of them are selected. Each times `weight` gives scores for
// writing each token, the value and, where there are places, scores for copying by place and by content.
struct HeadsCall {
    const float* hidden;      // [T * n, width]
    const float* weight;      // [vocabulary + 1 (+ places + vocabulary), width]
    const float* bias;        // one each
    const int64_t* context;   // [n, places]
    const int64_t* selected;  // [M], or null for all
    int64_t rows, width, vocabulary, places, padding, episodes, threads;

    int64_t scores() const { return vocabulary + 1 + (places ? places + vocabulary : 0); }
    int64_t index(int64_t row) const { return selected ? selected[row] : row; }
    const int64_t* read(int64_t row) const { return context + index(row) % episodes * places; }

    // The hidden states of `count` rows, one after the other; copied to `buffer` where they are not.
    const float* states(int64_t start, int64_t count, std::vector<float>& buffer) const {
        if (!selected) return hidden + start * width;
        for (int64_t i = 0; i < count; i++)
            std::copy_n(hidden + selected[start + i] * width, width, &buffer[i * width]);
        return buffer.data();
    }
};

int64_t heads_call_size() { return sizeof(HeadsCall); }

// Adds to each token's vector in `write` those of the places where the token stands.
static void add_copies(const HeadsCall& c, int64_t first, const float* copied, float* write) {
    for (int l = 0; l < LANES && c.places; l++) {
        const int64_t* context = c.read(std::min(first + l, c.rows - 1));
        for (int64_t k = 0; k < c.places; k++) write[context[k] * LANES + l] += copied[k * LANES + l];
    }
}

// Log-probabilities [M, vocabulary], values [M], and the parts of the probability that are copied from each place
// [M, places] and written [M, vocabulary]; `written` may be null.
void heads_forward(const HeadsCall* call, float* log_probs, float* value, float* copied, float* written) {
    const HeadsCall& c = *call;
    const int64_t H = c.width, V = c.vocabulary, C = c.places, columns = c.scores(), count = groups(c.rows);
    const int64_t padded = (columns + LANES - 1) / LANES * LANES, parts = std::min(c.threads, count);
    std::vector<float> across(H * padded), bias(padded);
    for (int64_t k = 0; k < columns; k++) {
        bias[k] = c.bias[k];
        for (int64_t i = 0; i < H; i++) across[i * padded + k] = c.weight[k * H + i];
    }
    workers().share(parts, c.threads, [&](int64_t part) {
        std::vector<float> own(GROUP * H), out(GROUP * padded), mix((V + C) * LANES), chance(V * LANES);
        for (int64_t group = count * part / parts; group < count * (part + 1) / parts; group++) {
            const int64_t start = group * GROUP, end = std::min(c.rows, start + GROUP);
            for (int64_t i = 0; i < end - start; i++) std::copy(bias.begin(), bias.end(), &out[i * padded]);
            const float* states = c.states(start, end - start, own);
            product(end - start, padded, H, states, H, 1, across.data(), padded, out.data(), padded, true);
            for (int64_t first = start; first < end; first += LANES) {
                for (int l = 0; l < LANES; l++) {
                    const int64_t row = std::min(first + l, end - 1), *context = c.read(row);
                    const float *scores = &out[(row - start) * padded], *by_place = scores + V + 1;
                    const float* by_content = by_place + C;
                    value[row] = scores[V];
                    for (int64_t v = 0; v < V; v++) mix[v * LANES + l] = scores[v];
                    for (int64_t k = 0; k < C; k++)
                        mix[(V + k) * LANES + l] =
                            context[k] == c.padding ? NONE : by_place[k] + by_content[context[k]];
                }
                softmax(mix.data(), V + C);
                if (written) from_lanes(mix.data(), V, first, end - 1, written, V);
                from_lanes(mix.data() + V * LANES, C, first, end - 1, copied, C);
                std::copy_n(mix.begin(), V * LANES, chance.begin());
                add_copies(c, first, mix.data() + V * LANES, chance.data());
                for (int64_t v = 0; v < V; v++)
                    store(&chance[v * LANES], logarithm(larger(load(&chance[v * LANES]), all(TINY))));
                from_lanes(chance.data(), V, first, end - 1, log_probs, V);
            }
        }
    });
}

// From the gradients of log-probabilities, values and copied parts to those of `hidden`, `weight` and `bias`; that of
// `hidden` is written at the selected states only.
void heads_backward(const HeadsCall* call, const float* copied, const float* written, const float* of_log_probs,
                    const float* of_value, const float* of_copied, float* of_hidden, float* of_weight, float* of_bias) {
    const HeadsCall& c = *call;
    const int64_t H = c.width, V = c.vocabulary, C = c.places, columns = c.scores();
    const int64_t padded = (columns + LANES - 1) / LANES * LANES;
    Sums sums({{of_weight, columns * H}, {of_bias, columns}}, groups(c.rows));
    workers().share(sums.parts, c.threads, [&](int64_t part) {
        std::vector<float> write(V * LANES), copy(C * LANES), chance(V * LANES), slope(V * LANES), of_copy(C * LANES),
            out(GROUP * padded), states(GROUP * H), of_states(GROUP * H);
        float *of_weight = sums.of(part, 0), *of_bias = sums.of(part, 1);
        for (int64_t group = part * GROUP; group < c.rows; group += sums.parts * GROUP) {
            const int64_t end = std::min(c.rows, group + GROUP), count = end - group;
            for (int64_t first = group; first < end; first += LANES) {
                to_lanes(written, V, V, first, end - 1, write.data());
                to_lanes(copied, C, C, first, end - 1, copy.data());
                to_lanes(of_log_probs, V, V, first, end - 1, slope.data());
                to_lanes(of_copied, C, C, first, end - 1, of_copy.data());
                chance = write;
                add_copies(c, first, copy.data(), chance.data());
                vec mean = {};  // of the slopes, which the softmax takes off
                for (int64_t v = 0; v < V; v++) {
                    const vec p = load(&chance[v * LANES]), of_log = load(&slope[v * LANES]);
                    const vec own = p < TINY ? vec{} : of_log / larger(p, all(TINY));
                    store(&slope[v * LANES], own);
                    mean += load(&write[v * LANES]) * own;
                }
                for (int l = 0; l < LANES; l++) {
                    const int64_t* context = c.read(std::min(first + l, end - 1));
                    for (int64_t k = 0; k < C; k++) of_copy[k * LANES + l] += slope[context[k] * LANES + l];
                }
                for (int64_t k = 0; k < C; k++) mean += load(&copy[k * LANES]) * load(&of_copy[k * LANES]);
                for (int64_t v = 0; v < V; v++)
                    store(&write[v * LANES], load(&write[v * LANES]) * (load(&slope[v * LANES]) - mean));
                for (int64_t k = 0; k < C; k++)
                    store(&copy[k * LANES], load(&copy[k * LANES]) * (load(&of_copy[k * LANES]) - mean));
                for (int l = 0; l < LANES && first + l < end; l++) {
                    const int64_t row = first + l, *context = c.read(row);
                    float *own = &out[(row - group) * padded], *by_place = own + V + 1, *by_content = by_place + C;
                    for (int64_t v = 0; v < V; v++) own[v] = write[v * LANES + l];
                    own[V] = of_value[row];
                    for (int64_t v = 0; v < V && C; v++) by_content[v] = 0;
                    for (int64_t k = 0; k < C; k++) {
                        by_place[k] = copy[k * LANES + l];
                        by_content[context[k]] += by_place[k];
                    }
                    for (int64_t k = 0; k < columns; k++) of_bias[k] += own[k];
                }
            }
            const float* given = c.states(group, count, states);
            product(columns, H, count, out.data(), 1, padded, given, H, of_weight, H, true);
            product(count, H, columns, out.data(), padded, 1, c.weight, H, of_states.data(), H, false);
            for (int64_t i = 0; i < count; i++) std::copy_n(&of_states[i * H], H, of_hidden + c.index(group + i) * H);
        }
    });
    sums.add();
}

}  // extern "C"
