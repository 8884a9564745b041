// Policy, value and copy head, forward and backward. The definition is `copy_heads` of policies/heads.py.

#include "heads.h"

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

    HeadShape shape() const { return {width, vocabulary, places, padding}; }
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

// Log-probabilities [M, vocabulary], values [M], and the parts of the probability that are copied from each place
// [M, places] and written [M, vocabulary]; `written` may be null.
void heads_forward(const HeadsCall* call, float* log_probs, float* value, float* copied, float* written) {
    const HeadsCall& c = *call;
    const HeadShape shape = c.shape();
    const int64_t H = c.width, V = c.vocabulary, C = c.places, count = groups(c.rows), padded = shape.padded();
    const int64_t parts = std::min(c.threads, count);
    std::vector<float> across, bias;
    shape.pad(c.weight, c.bias, across, bias);
    workers().share(parts, c.threads, [&](int64_t part) {
        std::vector<float> own(GROUP * H), out(GROUP * padded), mix((V + C) * LANES), chance(V * LANES);
        for (int64_t group = count * part / parts; group < count * (part + 1) / parts; group++) {
            const int64_t start = group * GROUP, end = std::min(c.rows, start + GROUP);
            shape.score(c.states(start, end - start, own), end - start, across.data(), bias.data(), out.data());
            for (int64_t first = start; first < end; first += LANES) {
                const int real = std::min<int64_t>(LANES, end - first);
                const float* scores = &out[(first - start) * padded];
                auto context = [&](int l) { return c.read(first + l); };
                for (int l = 0; l < real; l++) value[first + l] = scores[l * padded + V];
                shape.mix(scores, real, context, mix.data());
                if (written) from_lanes(mix.data(), V, first, end - 1, written, V);
                from_lanes(mix.data() + V * LANES, C, first, end - 1, copied, C);
                std::copy_n(mix.begin(), V * LANES, chance.begin());
                shape.add_copies(real, context, mix.data() + V * LANES, chance.data());
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
    const HeadShape shape = c.shape();
    const int64_t H = c.width, V = c.vocabulary, C = c.places, columns = shape.scores(), padded = shape.padded();
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
                auto context = [&](int l) { return c.read(first + l); };
                shape.back(std::min<int64_t>(LANES, end - first), context, write.data(), copy.data(), slope.data(),
                           of_copy.data(), of_value + first, &out[(first - group) * padded], of_bias, chance.data());
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
